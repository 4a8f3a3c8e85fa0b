"""Which keys this instance owns: none before, beside or after its place in the ring."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from cluster.members import Members
from cluster.model import Key, NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from comet.ownership.ownership import Ownership

KEYS = [Key(f"key-{n}") for n in range(50)]
HERE, THERE = {"tcp": ("192.0.2.1:1",)}, {"tcp": ("192.0.2.2:1",)}


def comet(name: str, addresses: dict[str, tuple[str, ...]] = HERE, **changed: Any) -> NodeInfo:
    return NodeInfo(NodeKind.COMET, NodeName(name), name, addresses, **changed)


class Node:
    """The ownership of an instance of "here", on a registry."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        members = Members(self.registry)
        self.ownership = Ownership(NodeName("here"), members.current)
        members.watch(self.ownership.take)

    def owned(self) -> int:
        count = sum(map(self.ownership.owns, KEYS))
        assert self.ownership.owns_all(KEYS) == (count == len(KEYS))
        return count


async def test_node_owns_nothing_before_it_serves_at_its_addresses() -> None:
    node = Node()
    assert node.owned() == 0
    await node.registry.register(comet("here"))
    assert node.owned() == 0
    assert not node.ownership.holdings.is_serving
    node.ownership.serve_at(HERE)
    assert node.owned() == len(KEYS)
    assert node.ownership.holdings.is_everything


async def test_node_owns_nothing_by_the_entry_that_the_process_before_it_has_left_behind() -> None:
    node = Node()
    left_behind = await node.registry.register(comet("here"))
    node.ownership.serve_at(HERE, ["here"])
    assert node.owned() == 0
    await left_behind.withdraw()
    await node.registry.register(replace(comet("here"), instance="here-2"))
    assert node.owned() == len(KEYS)


async def test_nodes_share_the_keys() -> None:
    node = Node()
    node.ownership.serve_at(HERE)
    await node.registry.register(comet("here"))
    other = await node.registry.register(comet("there", THERE))
    assert 0 < node.owned() < len(KEYS)
    assert not node.ownership.holdings.is_everything
    before = node.ownership.holdings
    await other.withdraw()
    assert node.owned() == len(KEYS)
    # What was concluded from an older membership does not change.
    assert 0 < sum(map(before.owns, KEYS)) < len(KEYS)


async def test_standby_under_the_same_name_owns_nothing_until_it_is_the_first() -> None:
    node = Node()
    node.ownership.serve_at(HERE)
    first = await node.registry.register(comet("here", THERE))
    await node.registry.register(comet("here"))
    assert node.owned() == 0
    await first.withdraw()
    assert node.owned() == len(KEYS)


async def test_draining_node_and_one_of_weight_0_own_nothing() -> None:
    node = Node()
    node.ownership.serve_at(HERE)
    registration = await node.registry.register(comet("here"))
    await registration.update(comet("here", is_draining=True))
    assert node.owned() == 0
    await registration.update(comet("here", weight=0))
    assert node.owned() == 0
    await registration.update(comet("here"))
    assert node.owned() == len(KEYS)


async def test_node_whose_registration_has_ended_owns_nothing_until_it_is_listed_anew() -> None:
    node = Node()
    node.ownership.serve_at(HERE)
    registration = await node.registry.register(comet("here"))
    assert not node.ownership.has_stopped
    node.ownership.lose("here")
    assert node.owned() == 0
    assert node.ownership.has_stopped
    # A membership that still names the incarnation that has ended is old.
    await registration.update(comet("here", weight=2))
    assert node.owned() == 0
    await registration.withdraw()
    await node.registry.register(replace(comet("here"), instance="here-2"))
    assert node.owned() == len(KEYS)
    assert not node.ownership.has_stopped


async def test_node_that_was_halted_owns_what_it_owned_when_it_goes_on() -> None:
    node = Node()
    node.ownership.serve_at(HERE)
    await node.registry.register(comet("here"))
    node.ownership.halt()
    assert node.ownership.has_stopped
    await node.registry.register(comet("there", THERE, weight=0))
    assert node.owned() == 0
    node.ownership.go_on()
    assert node.owned() == len(KEYS)
    assert not node.ownership.has_stopped
