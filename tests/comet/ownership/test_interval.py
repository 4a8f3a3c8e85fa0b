"""What may have been between two memberships that follow each other."""

from __future__ import annotations

import itertools

import pytest

from cluster.membership import Membership
from cluster.model import Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Snapshot
from comet.ownership.interval import Interval

KEYS = [Key(f"key-{n}") for n in range(200)]


def membership(**nodes: str) -> Membership:
    """Nodes by name, as "instance" or "instance*weight"."""
    infos = []
    for name, text in nodes.items():
        instance, _, weight = text.partition("*")
        infos.append(NodeInfo(NodeKind.COMET, NodeName(name), instance, {}, weight=int(weight or 1)))
    return Membership(Snapshot(epoch=(1, 1), nodes=tuple(infos)))


STEPS = [
    # Together with another one that joins; behind one that left; as the first ones.
    ({"a": "a1"}, {"a": "a1", "b": "b1", "me": "m1"}),
    ({"a": "a1", "b": "b1", "c": "c1"}, {"a": "a1", "b": "b1", "me": "m1"}),
    ({}, {"a": "a1", "b": "b1", "me": "m1"}),
    # Two leave at once; one comes, one leaves, one is another instance.
    ({"a": "a1", "b": "b1", "c": "c1", "me": "m1"}, {"a": "a1", "me": "m1"}),
    ({"a": "a1", "b": "b1", "c": "c1", "me": "m1"}, {"a": "a2", "c": "c1", "d": "d1", "me": "m1"}),
    # Its own place was empty for a moment.
    ({"a": "a1", "b": "b1", "me": "m1"}, {"a": "a1", "b": "b1", "me": "m2"}),
    ({"a": "a1*2", "b": "b1", "me": "m1"}, {"a": "a1", "b": "b1*2", "me": "m1*2"}),
]


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_every_order_of_the_changes_is_thought_of(before: dict[str, str], after: dict[str, str]) -> None:
    earlier, later = membership(**before), membership(**after)
    interval = Interval(earlier, later)
    assert not interval.is_whole
    mine = [key for key in KEYS if later.owner(key).name == "me"]
    assert mine
    names = before.keys() | after.keys()
    choices = [{before.get(name), after.get(name), _between(name, before, after)} for name in names]
    for chosen in itertools.product(*choices):
        there = {name: text for name, text in zip(names, chosen, strict=True) if text is not None}
        between = membership(**there)
        for key in mine if there else []:
            assert between.owner(key).instance in {node.instance for node in interval.owners(key)}


def _between(name: str, before: dict[str, str], after: dict[str, str]) -> str | None:
    """A name whose instance changes may be nobody's for a moment."""
    earlier, later = before.get(name, ""), after.get(name, "")
    return earlier or None if earlier.partition("*")[0] == later.partition("*")[0] else None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": "a1"}, {"a": "a1", "me": "m1"}),
        ({"a": "a1", "b": "b1", "me": "m1"}, {"a": "a1", "me": "m1"}),
        ({"a": "a1", "me": "m1"}, {"a": "a1", "me": "m1*2"}),
        ({}, {"me": "m1"}),
    ],
)
def test_between_two_memberships_that_differ_by_one_change_there_was_nothing(
    before: dict[str, str], after: dict[str, str]
) -> None:
    earlier = membership(**before)
    interval = Interval(earlier, membership(**after))
    assert interval.is_whole
    for key in KEYS:
        assert interval.owners(key) == ([earlier.owner(key)] if before else [])
    assert {node.instance for node in interval.nodes} == set(before.values())


def test_an_unchanged_node_ends_the_search() -> None:
    everyone = {"a": "a1", "b": "b1", "c": "c1"}
    interval = Interval(membership(**everyone), membership(**everyone, d="d1", me="m1"))
    counts = {len(interval.owners(key)) for key in KEYS}
    # A steady one alone, or behind one or both of the new ones.
    assert counts == {1, 2, 3}
