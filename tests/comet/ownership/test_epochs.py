"""What is asked under a newer membership waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.contracts.comet import Push
from cluster.errors import NotOwnerError, UnavailableError
from cluster.members import Members
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Epoch, Key, NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from comet.ownership.epochs import EpochGate
from tests.comet.nodes import Core, running_core
from tests.support.eventually import eventually

BOB = Key("bob")


def push(epoch: Epoch, timeout_s: float = 5.0, push_id: str = "p", expire_s: int = 0) -> Push:
    return Push([BOB], b"1", expire_s, push_id, 0, timeout_s, epoch)


def epoch_of(core: Core) -> Epoch:
    return Members(core.comet.registry).current.epoch


async def change(core: Core, weight: int) -> None:
    """Another node appears: with weight 0 it takes no keys, with a huge one nearly all."""
    await core.comet.registry.register(
        NodeInfo(NodeKind.COMET, NodeName("other"), "other", {}, weight=weight)
    )


async def test_a_push_under_a_newer_membership_is_done_when_that_one_has_come(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        generation, changes = epoch_of(core)
        early = core.node.push(push((generation, changes + 1)))
        await asyncio.sleep(0)
        assert not early.done()
        await change(core, weight=0)
        assert (await early).failed == []


async def test_the_time_for_a_membership_is_part_of_the_time_for_the_push(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        generation, changes = epoch_of(core)
        loop = asyncio.get_running_loop()
        early = core.node.push(push((generation, changes + 1), timeout_s=5.0, expire_s=600))
        latest = await core.way.store.clock() + 5 * TICKS_PER_SECOND
        began = loop.time()
        await eventually(lambda: loop.time() - began > 0.1)
        await change(core, weight=0)
        assert (await early).failed == []
        # Nearly: the time of the loop stands still within a turn.
        assert core.way.batches[0].deadline <= latest + TICKS_PER_SECOND // 20


async def test_a_push_for_a_key_that_the_newer_membership_takes_away_is_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        generation, changes = epoch_of(core)
        early = core.node.push(push((generation, changes + 1)))
        await change(core, weight=9)
        with pytest.raises(NotOwnerError):
            await early


async def test_a_membership_that_does_not_come_is_waited_for_only_so_long(tmp_path: Path) -> None:
    async with running_core(tmp_path, membership_wait_s=0.05) as core:
        generation, changes = epoch_of(core)
        newer = (generation, changes + 1)
        with pytest.raises(UnavailableError):
            await core.node.push(push(newer))
        with pytest.raises(UnavailableError):
            await core.node.delete_key(BOB, newer)
        # A caller with less time is not kept longer.
        with pytest.raises(UnavailableError):
            await core.node.push(push(newer, timeout_s=0.0))


async def test_those_who_wait_go_on_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    gate = EpochGate(members, 5.0)
    members.watch(gate.take)
    seen: list[tuple[int, bool]] = []
    gate.when((0, 0), 5.0, lambda is_reached: seen.append((0, is_reached)))
    for number in (1, 2, 3):
        gate.when((1, 1), 5.0, lambda is_reached, number=number: seen.append((number, is_reached)))  # type: ignore[misc]
    gate.when((2, 0), 5.0, lambda is_reached: seen.append((4, is_reached)))
    await registry.register(NodeInfo(NodeKind.COMET, NodeName("a"), "a", {}))
    assert seen == [(0, True), (1, True), (2, True), (3, True)]
    await gate.stop()
    assert seen[4:] == [(4, False)]


async def test_nobody_waits_any_longer_for_a_node_that_has_stopped(tmp_path: Path) -> None:
    async with running_core(tmp_path, membership_wait_s=60.0) as core:
        waiting = core.node.push(push((9, 9), timeout_s=60.0))
    # What comes now does not wait either, and leaves nothing behind.
    for answer in (waiting, core.node.push(push((9, 9), timeout_s=60.0))):
        with pytest.raises(UnavailableError):
            await answer
