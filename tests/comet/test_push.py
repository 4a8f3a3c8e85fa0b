import asyncio

import pytest

from cluster.errors import NotOwnerError, UnavailableError
from tests.comet.nodes import running_core, values


async def test_a_push_to_an_offline_key_leaves_nothing_in_memory(tmp_path):
    async with running_core(tmp_path) as core:
        for expire_s in (0, 600):
            reply = await core.push([f"offline-{n}" for n in range(50)], 1, expire_s=expire_s)
            assert reply.online == [0] * 50
        assert core.comet.counted("channels") == 0
        assert core.comet.counted("busy_keys") == 0
        assert core.comet.counted("pending_keys") == 0


async def test_a_push_to_many_keys_is_served_in_slices_and_another_gets_its_turn(tmp_path):
    async with running_core(tmp_path, fan_out_slice=10) as core:
        bob = await core.subscribe("bob")
        large = core.push([f"k{n}" for n in range(1000)], "large")
        small = core.push("bob", "small")
        assert small.done()
        assert not large.done()
        assert len((await large).mids) == 1000
        assert values([await bob.next_document()]) == ["small"]


async def test_results_keep_the_order_of_the_keys_when_some_fail(tmp_path):
    async with running_core(tmp_path, max_queue_per_key=1) as core:
        await core.subscribe("bob")
        gate = core.way.close_gate("hot")
        held = core.push("hot", 0, expire_s=600)
        reply = await core.push(["cold", "hot", "bob"], 1, expire_s=600)
        assert [(failure.index, failure.code) for failure in reply.failed] == [(1, "unavailable")]
        assert [mid > 0 for mid in reply.mids] == [True, False, True]
        assert reply.online == [0, 0, 1]
        gate.set()
        await held


async def test_more_in_progress_than_the_bound_is_refused_whole(tmp_path):
    async with running_core(tmp_path, max_pending_keys=5) as core:
        gate = core.way.close_gate("slow")
        slow = core.push("slow", 0, expire_s=600)
        with pytest.raises(UnavailableError):
            await core.push([f"k{n}" for n in range(5)], 1)
        gate.set()
        await slow
        # Alone even a larger one may pass.
        assert len((await core.push([f"k{n}" for n in range(6)], 1)).mids) == 6


async def test_a_drain_finishes_what_was_begun_refuses_the_rest_and_says_goodbye(tmp_path):
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
