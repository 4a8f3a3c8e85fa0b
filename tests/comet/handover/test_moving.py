"""Connections of keys that have moved are closed, the others are not."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.ring import Ring
from tests.comet.nodes import Core, running_core, values
from tests.support.subscriber import End

RING = Ring({NodeName("comet-1"): 1, NodeName("other"): 1})


def keys_of(name: str, count: int) -> list[str]:
    """Keys that go to this node when there are two."""
    named = [f"key-{n}" for n in range(100)]
    return [key for key in named if RING.owner(key) == name][:count]  # type: ignore[arg-type]


async def other_appears(core: Core) -> object:
    return await core.comet.registry.register(NodeInfo(NodeKind.COMET, NodeName("other"), "other", {}))


async def test_only_connections_of_lost_keys_are_closed_with_the_word_that_they_moved(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        lost = [await core.subscribe(key) for key in keys_of("other", 3)]
        kept = [await core.subscribe(key) for key in keys_of("comet-1", 3)]
        await other_appears(core)
        for subscriber in lost:
            assert (await subscriber.end()).code == 4001
        for subscriber in kept:
            await subscriber.beat()
        assert core.comet.counted("leaving") == 0


async def test_what_was_accepted_before_the_key_moved_is_delivered_before_the_close(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        key = keys_of("other", 1)[0]
        bob = await core.subscribe(key)
        gate = core.way.close_gate(key)
        push = core.push(key, "accepted", expire_s=600)
        await other_appears(core)
        await bob.beat()
        gate.set()
        assert (await push).online == [1]
        assert values([await bob.next_document()]) == ["accepted"]
        assert isinstance(ending := await bob.end(), End)
        assert ending.code == 4001


async def test_a_key_that_was_lost_and_came_back_has_its_connections_closed(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe(keys_of("other", 1)[0])
        registration = await core.comet.registry.register(
            NodeInfo(NodeKind.COMET, NodeName("other"), "other", {})
        )
        # Meanwhile the other may have delivered what this node does not know of.
        await registration.withdraw()
        assert (await bob.end()).code == 4001


async def test_closing_is_paced(tmp_path: Path) -> None:
    async with running_core(tmp_path, close_pace_per_s=20) as core:
        keys = keys_of("other", 6)
        subscribers = [await core.subscribe(key) for key in keys]
        began = asyncio.get_running_loop().time()
        await other_appears(core)
        for subscriber in subscribers:
            assert (await subscriber.end()).code == 4001
        # One at a time, at least half a step apart.
        assert asyncio.get_running_loop().time() - began >= 5 * 0.025
