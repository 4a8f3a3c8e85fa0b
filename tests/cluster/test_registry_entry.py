"""cluster/registry/entry.py."""

from __future__ import annotations

from cluster.registry.entry import NodeEntry
from cluster.registry.memory import MemoryRegistry
from tests.cluster.registries import Seen, web


async def test_entry_is_announced_marked_and_taken_back() -> None:
    registry = MemoryRegistry()
    seen = Seen(registry)
    entry = NodeEntry(registry, lambda: web("w"))
    steps = [entry.is_registered]

    for step in (entry.register, entry.mark_draining, entry.withdraw, entry.withdraw):
        await step()
        steps.append(entry.is_registered)

    assert steps == [False, True, True, False, False]
    assert [[node.is_draining for node in one.nodes] for one in seen.snapshots] == [[], [False], [True], []]


async def test_what_is_announced_is_asked_for_at_each_step() -> None:
    registry = MemoryRegistry()
    seen = Seen(registry)
    described = [web("later"), web("first")]
    entry = NodeEntry(registry, described.pop)

    await entry.register()
    await entry.mark_draining()

    assert [[node.name for node in one.nodes] for one in seen.snapshots] == [[], ["first"], ["later"]]


async def test_entry_that_was_never_announced_is_neither_marked_nor_taken_back() -> None:
    registry = MemoryRegistry()
    seen = Seen(registry)
    entry = NodeEntry(registry, lambda: web("w"))

    await entry.mark_draining()
    await entry.withdraw()

    assert len(seen.snapshots) == 1
    assert not entry.is_own(web("w"))


async def test_entry_knows_its_own_among_those_of_its_name() -> None:
    registry = MemoryRegistry()
    mine, other = web("w"), web("w")
    entry = NodeEntry(registry, lambda: mine)
    await entry.register()

    assert entry.is_own(mine)
    assert not entry.is_own(other)
