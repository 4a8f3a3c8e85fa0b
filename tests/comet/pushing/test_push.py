"""comet/pushing/push.py: pushes and deletions in the order of calls, in slices and bounds; the drain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from cluster.contracts.comet import Push, PushReply
from cluster.contracts.comet_rpc import SERVICE, CometStub
from cluster.errors import InDoubtError, NotOwnerError, RequestError, StorageError, UnavailableError
from cluster.model import Key
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from comet.codec.protocol import CloseReason
from tests.comet.nodes import running_core, values
from tests.support.eventually import eventually
from tests.support.registry import ShakyRegistry


async def test_a_push_to_an_offline_key_leaves_nothing_in_memory(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        for expire_s in (0, 600):
            reply = await core.push([f"offline-{n}" for n in range(50)], 1, expire_s=expire_s)
            assert reply.online == [0] * 50
        assert core.comet.counted("channels") == 0
        assert core.comet.counted("busy_keys") == 0
        assert core.comet.counted("pending_keys") == 0


async def test_a_push_to_many_keys_is_served_in_slices_and_another_gets_its_turn(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=10) as core:
        bob = await core.subscribe("bob")
        large = core.push([f"k{n}" for n in range(1000)], "large")
        small = core.push("bob", "small")
        assert small.done()
        assert not large.done()
        assert len((await large).mids) == 1000
        assert values([await bob.next_document()]) == ["small"]


async def test_results_keep_the_order_of_the_keys_when_some_fail(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_queue_per_key=1) as core:
        await core.subscribe("bob")
        gate = core.way.close_gate("hot")
        held = core.push("hot", 0, expire_s=600)
        reply = await core.push(["cold", "hot", "bob"], 1, expire_s=600)
        assert [(failure.index, failure.code) for failure in reply.failed] == [(1, "overloaded")]
        assert [mid > 0 for mid in reply.mids] == [True, False, True]
        assert reply.online == [0, 0, 1]
        gate.set()
        await held


async def test_more_in_progress_than_the_bound_is_refused_whole(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_pending_keys=5) as core:
        gate = core.way.close_gate("slow")
        slow = core.push("slow", 0, expire_s=600)
        with pytest.raises(UnavailableError):
            await core.push([f"k{n}" for n in range(5)], 1)
        gate.set()
        await slow
        # Alone even a larger one may pass.
        assert len((await core.push([f"k{n}" for n in range(6)], 1)).mids) == 6


async def test_a_drain_finishes_what_was_begun_refuses_the_rest_and_says_goodbye(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        begun = core.push("bob", "begun", expire_s=600)
        drain = asyncio.ensure_future(core.node.drain(5.0))
        await asyncio.sleep(0)
        # It has left the ring, so nobody owns the key.
        with pytest.raises(NotOwnerError):
            await core.push("bob", "too late")
        gate.set()
        assert (await begun).online == [1]
        assert values([await bob.next_document()]) == ["begun"]
        assert (await bob.end()).code == 1001
        await drain


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


async def test_a_deletion_comes_after_a_large_push_that_was_called_before(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=10) as core:
        large = core.push([f"k{n}" for n in range(100)], "large", expire_s=600)
        deletion = asyncio.ensure_future(core.node.delete_key(Key("k99"), (0, 0)))
        assert await deletion == 1
        assert (await large).failed == []
        assert (await core.way.store.inspect(Key("k99"))).messages == 0
        assert (await core.way.store.inspect(Key("k98"))).messages == 1


async def test_each_key_gets_its_pushes_in_the_order_of_the_calls_whatever_their_size(tmp_path: Path) -> None:
    async with running_core(tmp_path, fan_out_slice=2) as core:
        keys = [f"k{n}" for n in range(6)]
        subscribers = {key: await core.subscribe(key) for key in keys}
        random = Random(11)
        wanted: dict[str, list[int]] = {key: [] for key in keys}
        pushes = []
        for number in range(200):
            names = random.sample(keys, random.randint(1, len(keys)))
            pushes.append(core.push(names, number, expire_s=random.choice([0, 0, 600])))
            for name in names:
                wanted[name].append(number)
            if random.random() < 0.2:
                # Lets slices and saves go on.
                await asyncio.sleep(0)
        for push in pushes:
            assert (await push).failed == []
        for key, subscriber in subscribers.items():
            assert values(await subscriber.documents(len(wanted[key]))) == wanted[key]
        assert core.comet.counted("busy_keys") == core.comet.counted("pending_keys") == 0


async def test_a_push_without_a_key_is_refused_and_holds_nothing_up(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        with pytest.raises(RequestError):
            await core.push([], 1)
        async with asyncio.timeout(5):
            await core.node._keys.pusher.drain()


async def test_more_bytes_in_progress_than_the_bound_are_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_pending_bytes=1024 * 1024) as core:
        gate = core.way.close_gate("slow")
        slow = core.push("slow", "x" * 600_000, expire_s=600)
        with pytest.raises(UnavailableError):
            await core.push("other", "x" * 600_000)
        assert core.comet.counted("pushes_total", "refused") == 1
        gate.set()
        await slow
        await core.push("other", "x" * 600_000)


async def test_a_pusher_that_drains_refuses_even_who_asks_it_directly(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        await core.node._keys.pusher.drain()
        with pytest.raises(UnavailableError):
            await core.push("bob", 1)


async def test_a_deletion_behind_too_many_pushes_is_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_queue_per_key=2) as core:
        gate = core.way.close_gate("hot")
        pushes = [core.push("hot", n, expire_s=600) for n in range(2)]
        with pytest.raises(UnavailableError):
            await core.node.delete_key(Key("hot"), (0, 0))
        gate.set()
        for push in pushes:
            assert (await push).failed == []


async def test_a_caller_who_goes_away_does_not_stop_a_deletion(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        for is_refused in (False, True):
            if is_refused:
                # Its refusal is nobody's then.
                core.way.delete_refusals.append(StorageError("no"))
            deletion = asyncio.ensure_future(core.node.delete_key(Key("bob"), (0, 0)))
            await asyncio.sleep(0)
            deletion.cancel()
        gate.set()
        assert (await bob.end()).code == 4004
        await eventually(lambda: core.comet.counted("busy_keys") == 0)


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


async def test_a_drain_whose_time_is_up_answers_the_web_nodes_before_their_connections_end(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path, registry=ShakyRegistry(60.0), rpc=RpcConfig()) as core:
        gate = core.way.close_gate("bob")
        client = RpcClient(core.node.addresses["rpc"], SERVICE, RpcConfig())
        client.start()
        comet = CometStub(client)
        pushes = [
            comet.push(Push([Key("bob")], b"1", expire_s, f"id-{expire_s}", 0, 30.0, (0, 0)))
            for expire_s in (600, 0)
        ]
        await eventually(lambda: core.comet.counted("pending_keys") == 2)
        await core.node.drain(0.2)
        outcomes = await asyncio.gather(*pushes, return_exceptions=True)
        await client.stop()
        gate.set()
        assert [codes(outcome) for outcome in outcomes] == [["in_doubt"], ["unavailable"]]


def codes(reply: PushReply) -> list[str]:
    """Why keys of a push have failed."""
    return [failure.code for failure in reply.failed]
