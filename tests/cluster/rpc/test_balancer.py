"""Choosing a peer for a key: alike everywhere, by weight, moving as little as possible."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.rpc.balancer import Balancer, rank

KEYS = [f"user:{number}" for number in range(20_000)]


class Node:
    """A peer whose state the test sets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_up = True
        self.is_connecting = False

    def fail(self, *, is_connecting: bool = False) -> None:
        self.is_up = False
        self.is_connecting = is_connecting


def balancer_of(weights: dict[str, int]) -> tuple[Balancer[Node], dict[str, Node]]:
    nodes = {name: Node(name) for name in weights}
    balancer = Balancer[Node]()
    balancer.replace({name: (nodes[name], weight) for name, weight in weights.items()})
    return balancer, nodes


def chosen(balancer: Balancer[Node], key: str) -> str:
    node = balancer.choose(key)
    assert node is not None
    return node.name


def choices(balancer: Balancer[Node]) -> dict[str, str]:
    return {key: chosen(balancer, key) for key in KEYS}


def test_nobody_is_chosen_from_an_empty_list() -> None:
    assert Balancer[Node]().choose("bob") is None
    assert Balancer[Node]().order("bob") == ()


def test_two_nodes_that_see_the_same_list_choose_alike() -> None:
    one, _ = balancer_of({"a": 1, "b": 2, "c": 3})
    other, _ = balancer_of({"c": 3, "a": 1, "b": 2})

    assert choices(one) == choices(other)


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 5}])
def test_shares_follow_the_weights(weights: dict[str, int]) -> None:
    balancer, _ = balancer_of(weights)

    counts = Counter(choices(balancer).values())

    for name, weight in weights.items():
        assert counts[name] / len(KEYS) == pytest.approx(weight / sum(weights.values()), abs=0.03)


def test_weight_nought_is_never_chosen() -> None:
    balancer, _ = balancer_of({"a": 1, "b": 0})

    assert set(choices(balancer).values()) == {"a"}


def test_loss_of_one_moves_its_keys_alone_and_they_come_back() -> None:
    balancer, nodes = balancer_of({"a": 1, "b": 1, "c": 1})
    before = choices(balancer)

    nodes["b"].fail()
    meanwhile = choices(balancer)
    nodes["b"].is_up = True

    assert {key for key in KEYS if before[key] != meanwhile[key]} == {k for k in KEYS if before[k] == "b"}
    moved = Counter(meanwhile[key] for key in KEYS if before[key] == "b")
    assert moved["a"] == pytest.approx(moved["c"], rel=0.2)
    assert choices(balancer) == before


def test_newcomer_takes_its_share_and_moves_nothing_between_the_others() -> None:
    one, _ = balancer_of({"a": 1, "b": 1})
    before = choices(one)
    other, _ = balancer_of({"a": 1, "b": 1, "c": 1})
    after = choices(other)

    assert {after[key] for key in KEYS if before[key] != after[key]} == {"c"}


def test_replacing_the_list_keeps_choices_and_uses_the_new_peers() -> None:
    balancer, _ = balancer_of({"a": 1, "b": 1})
    before = choices(balancer)
    later = {name: Node(name) for name in "ab"}

    balancer.replace({name: (node, 1) for name, node in later.items()})

    assert choices(balancer) == before
    assert balancer.choose("bob") in later.values()


def test_peer_that_is_being_connected_is_preferred_to_one_that_is_down() -> None:
    balancer, nodes = balancer_of({"a": 1, "b": 1, "c": 1})
    first, second, third = balancer.order("bob")
    first.fail()
    third.fail()
    assert balancer.choose("bob") is second

    second.fail(is_connecting=True)
    assert balancer.choose("bob") is second

    nodes[second.name].fail()
    assert balancer.choose("bob") is first


def test_other_peer_is_one_that_can_be_asked() -> None:
    balancer, _ = balancer_of({"a": 1, "b": 1, "c": 1})
    first, second, third = balancer.order("bob")
    assert balancer.choose_other("bob", first) is second
    assert balancer.choose_other("bob", second) is first
    assert balancer.choose_other("bob", first, second) is third
    assert balancer.choose_other("bob", first, second, third) is None

    second.fail(is_connecting=True)
    assert balancer.choose_other("bob", first) is third
    third.fail()
    assert balancer.choose_other("bob", first) is second
    second.fail()
    assert balancer.choose_other("bob", first) is None


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 100), max_size=8), st.integers(0, 10**6)
)
def test_any_list_is_ordered_completely_and_without_one_the_rest_stays(
    weights: dict[str, int], slot: int
) -> None:
    order = rank(slot, weights)

    assert sorted(order) == sorted(weights)
    for name in weights:
        rest = {other: weight for other, weight in weights.items() if other != name}
        assert rank(slot, rest) == [other for other in order if other != name]
