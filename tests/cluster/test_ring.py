"""Consistent hashing: who owns a key, and how little moves when a node comes or goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import NoNodeError
from cluster.model import Key, NodeName
from cluster.ring import Ring

KEYS = [Key(f"key-{n}") for n in range(2000)]


def ring(**weights: int) -> Ring:
    return Ring({NodeName(name): weight for name, weight in weights.items()})


def owners(of: Ring) -> dict[Key, NodeName]:
    return {key: of.owner(key) for key in KEYS}


def test_empty_ring_owns_nothing() -> None:
    for empty in (ring(), ring(a=0, b=0)):
        assert empty.sole is None
        assert empty.shares() == {}
        with pytest.raises(NoNodeError):
            empty.owner(KEYS[0])


def test_only_node_owns_everything() -> None:
    for alone in (ring(a=1), ring(a=7, b=0)):
        assert alone.sole == "a"
        assert alone.owner(KEYS[0]) == "a"
        assert alone.shares() == {"a": 1.0}


def test_node_of_weight_0_owns_nothing() -> None:
    weighted = ring(a=1, b=1, idle=0)
    assert set(owners(weighted).values()) == {"a", "b"}
    assert set(weighted.shares()) == {"a", "b"}
    assert owners(weighted) == owners(ring(a=1, b=1))


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)))
@settings(max_examples=25, deadline=None)
def test_shares_sum_to_1(weights: dict[str, int]) -> None:
    shares = ring(**weights).shares()
    assert set(shares) == {name for name, weight in weights.items() if weight}
    if shares:
        assert sum(shares.values()) == pytest.approx(1.0)
        assert min(shares.values()) > 0


def test_share_follows_the_weight_and_tells_how_many_keys_a_node_owns() -> None:
    weighted = ring(light=1, heavy=3)
    shares = weighted.shares()
    assert shares[NodeName("heavy")] == pytest.approx(0.75, abs=0.08)
    owned = list(owners(weighted).values())
    assert owned.count(NodeName("heavy")) / len(KEYS) == pytest.approx(shares[NodeName("heavy")], abs=0.05)


def test_same_nodes_in_any_order_make_the_same_ring() -> None:
    assert owners(ring(a=1, b=2, c=1)) == owners(ring(c=1, b=2, a=1))


def test_node_that_leaves_moves_only_its_own_keys() -> None:
    before, after = owners(ring(a=1, b=1, c=1)), owners(ring(a=1, b=1))
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == "c"}


def test_weight_that_grows_takes_keys_and_moves_none_between_the_others() -> None:
    before, after = owners(ring(a=1, b=1, c=1)), owners(ring(a=1, b=1, c=2))
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved
    assert {after[key] for key in moved} == {"c"}


def test_the_order_of_a_key_names_who_owns_it_when_those_before_have_gone() -> None:
    weights = {NodeName("a"): 1, NodeName("b"): 2, NodeName("c"): 1}
    ring = Ring(weights)
    for n in range(100):
        key = Key(f"key-{n}")
        there = dict(weights)
        for name in ring.order(key):
            assert Ring(there).owner(key) == name
            del there[name]
        assert not there
    assert list(Ring({NodeName("a"): 1}).order(Key("k"))) == ["a"]
    assert list(Ring({}).order(Key("k"))) == []
