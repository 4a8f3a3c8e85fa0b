"""What follows from a snapshot: who serves, who stands by, who owns which key."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import NoNodeError
from cluster.membership import Membership
from cluster.model import Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Snapshot

KEYS = [Key(f"key-{n}") for n in range(200)]


def comet(name: str, instance: str = "", **changed: Any) -> NodeInfo:
    return NodeInfo(NodeKind.COMET, NodeName(name), instance or f"{name}-1", {}, **changed)


def message(name: str) -> NodeInfo:
    return NodeInfo(NodeKind.MESSAGE, NodeName(name), f"{name}-1", {})


def membership(*nodes: NodeInfo) -> Membership:
    return Membership(Snapshot((1, 1), nodes))


def test_nobody_owns_a_key_without_comet_nodes() -> None:
    for empty in (membership(), membership(message("m")), membership(comet("a", is_draining=True))):
        with pytest.raises(NoNodeError):
            empty.owner(KEYS[0])
        with pytest.raises(NoNodeError):
            empty.group_by_owner(KEYS)


def test_first_registered_instance_serves_and_the_others_stand_by() -> None:
    first, second, other = comet("a", "first"), comet("a", "second"), comet("b")
    members = membership(first, second, other)
    assert [members.is_serving(node) for node in (first, second, other)] == [True, False, True]
    assert {members.owner(key).instance for key in KEYS} == {"first", "b-1"}
    assert membership(second, first).owner(KEYS[0]) == second


def test_standby_takes_over_from_an_instance_that_drains_and_no_key_moves() -> None:
    first, second, other = comet("a", "first"), comet("a", "second"), comet("b")
    before = membership(first, second, other)
    draining = comet("a", "first", is_draining=True)
    after = membership(draining, second, other)
    assert [after.is_serving(node) for node in (draining, second)] == [False, True]
    assert [before.owner(key).name for key in KEYS] == [after.owner(key).name for key in KEYS]
    assert {after.owner(key).instance for key in KEYS} == {"second", "b-1"}


def test_draining_node_without_a_standby_leaves_its_keys_to_the_others() -> None:
    members = membership(comet("a", is_draining=True), comet("b"), comet("c"))
    assert {members.owner(key).name for key in KEYS} == {"b", "c"}
    # It is still listed.
    assert [node.name for node in members.nodes] == ["a", "b", "c"]


def test_weight_of_the_serving_instance_counts() -> None:
    members = membership(comet("a", "first", weight=0), comet("a", "second", weight=5), comet("b"))
    assert {members.owner(key).name for key in KEYS} == {"b"}


@pytest.mark.parametrize("names", ["a", "abc"])
def test_keys_are_grouped_by_owner_in_their_order(names: str) -> None:
    members = membership(*(comet(name) for name in names))
    groups = members.group_by_owner(KEYS)
    assert sorted(node.name for node, _ in groups) == list(names)
    assert sorted(key for _, keys in groups for key in keys) == sorted(KEYS)
    for node, keys in groups:
        assert keys == [key for key in KEYS if members.owner(key) == node]


def test_nodes_are_listed_by_kind_in_order_of_registration() -> None:
    members = membership(message("m2"), comet("a"), message("m1"))
    assert [node.name for node in members.of_kind(NodeKind.MESSAGE)] == ["m2", "m1"]
    assert list(members.of_kind(NodeKind.WEB)) == []
    assert not members.is_serving(message("m1"))


def test_a_node_of_weight_0_serves_nothing_and_is_listed() -> None:
    idle, busy = comet("a", weight=0), comet("b")
    members = membership(idle, busy)
    assert [members.is_serving(node) for node in (idle, busy)] == [False, True]
    assert members.serving(idle.name) is None
    assert {members.owner(key).name for key in KEYS} == {"b"}
    assert members.nodes == (idle, busy)
    with pytest.raises(NoNodeError):
        membership(idle).owner(KEYS[0])


def test_a_ring_that_is_there_already_is_taken() -> None:
    first = membership(comet("a"), comet("b"))
    second = Membership(Snapshot((1, 2), (comet("a"), comet("b"), message("m"))), first.ring)
    assert second.ring is first.ring
    assert second.epoch == (1, 2)
