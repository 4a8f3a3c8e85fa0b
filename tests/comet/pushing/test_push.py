"""comet/pushing/push.py: pushes and deletions in the order of calls, in slices; what a stop leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.contracts.comet import PushReply
from cluster.errors import InDoubtError, UnavailableError
from cluster.model import Key
from comet.codec.protocol import CloseReason
from tests.comet.nodes import running_core, values
from tests.support.eventually import eventually


async def test_a_push_to_many_keys_is_served_in_slices_and_another_gets_its_turn(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=10) as core:
        bob = await core.subscribe("bob")
        large = core.push([f"k{n}" for n in range(1000)], "large")
        small = core.push("bob", "small")
        assert small.done()
        assert not large.done()
        assert len((await large).mids) == 1000
        assert values([await bob.next_document()]) == ["small"]


async def test_a_push_does_not_overtake_a_large_one_that_was_called_before(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=10) as core:
        first, last = await core.subscribe("k0"), await core.subscribe("k99")
        large = core.push([f"k{n}" for n in range(100)], "large")
        # The other way round, so that it meets the first one's keys early.
        reverse = core.push([f"k{n}" for n in reversed(range(100))], "reverse")
        small = core.push("k99", "small")
        assert small.done()
        assert not large.done()
        assert values(await last.documents(3)) == ["large", "reverse", "small"]
        assert values(await first.documents(2)) == ["large", "reverse"]
        for push in (large, reverse):
            reply = await push
            assert (sum(reply.online), reply.failed) == (2, [])
            assert all(reply.mids)
        for subscriber in (first, last):
            await subscriber.beat()


async def test_a_pusher_that_drains_refuses_even_who_asks_it_directly(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        await core.node._keys.pusher.drain()
        with pytest.raises(UnavailableError):
            await core.push("bob", 1)


async def test_a_call_at_the_turn_of_a_key_comes_after_what_was_accepted_before(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=1) as core:
        seen: list[str] = []
        pusher = core.node._keys.pusher
        pusher.at_turn(Key("idle"), lambda: seen.append("at once"))
        assert seen == ["at once"]
        gate = core.way.close_gate("busy")
        push = core.push("busy", 1, expire_s=600)
        push.add_done_callback(lambda _: seen.append("pushed"))
        pusher.at_turn(Key("busy"), lambda: seen.append("at its turn"))
        assert seen == ["at once"]
        gate.set()
        await eventually(lambda: len(seen) == 3)
        # Also behind a slice that is still to come.
        bob = await core.subscribe("bob")
        core.push(["a", "b", "bob"], "before")
        pusher.at_turn(Key("bob"), lambda: core.node._hub.close_key(Key("bob"), CloseReason.MOVED))
        assert values([await bob.next_document()]) == ["before"]
        assert (await bob.end()).code == 4001


async def test_a_node_that_is_cut_answers_what_is_in_progress_by_what_is_known(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=1) as core:
        gate = core.way.close_gate("hot")
        core.way.refusals.extend([UnavailableError("nobody is there")] * 100)
        repeated = core.push("cold", 1, expire_s=600)
        # Between two tries; the pause after the fifth is long.
        await eventually(lambda: len(core.way.refusals) < 96)
        saving, waiting, unsaved = (core.push("hot", n, expire_s=s) for n, s in enumerate((600, 600, 0)))
        # Its second half has not had its turn.
        large = core.push(["idle", *(f"hot-{n}" for n in range(9))], 1)
        core.way.close_gate("gone")
        running = asyncio.ensure_future(core.node.delete_key(Key("gone"), (0, 0)))
        queued = asyncio.ensure_future(core.node.delete_key(Key("hot"), (0, 0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await core.node.stop()
        refusals_left = len(core.way.refusals)
        assert [codes(await push) for push in (repeated, waiting, unsaved)] == [["unavailable"]] * 3
        # It may have been stored.
        assert codes(await saving) == ["in_doubt"]
        assert codes(await large) == ["unavailable"] * len((await large).failed)
        with pytest.raises(InDoubtError):
            await running
        with pytest.raises(UnavailableError):
            await queued
        with pytest.raises(UnavailableError):
            await core.node._keys.pusher.run_exclusive(Key("hot"), asyncio.Event().wait)
        assert core.comet.counted("pending_keys") == 0
        # What the store says now is nobody's.
        gate.set()
        await eventually(lambda: len(core.way.refusals) < refusals_left)


def codes(reply: PushReply) -> list[str]:
    """Why keys of a push have failed."""
    return [failure.code for failure in reply.failed]
