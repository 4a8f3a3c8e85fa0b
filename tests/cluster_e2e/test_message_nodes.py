"""Message nodes that die, hang or are told to stop while pushes go on: the other takes their keys in time."""

from __future__ import annotations

import asyncio

from tests.cluster_e2e.six import owner_of, saved_by, started_run
from tests.support.cluster import Cluster

FROZEN_S = 5.0


async def test_a_frozen_message_node_holds_up_its_own_keys_only_and_fails_no_push(
    cluster: Cluster, seed: int
) -> None:
    run = started_run(cluster, seed)
    frozen = cluster.nodes["message-1"]
    (held,), (free,) = saved_by(cluster, "message-1", 1), saved_by(cluster, "message-2", 1)
    owner = owner_of(held)
    await cluster.wait_owner(held, owner)
    async with run.under_way(), cluster.nodes[owner].tcp(held) as subscriber, run.fault():
        frozen.freeze()
        try:
            waiting = asyncio.create_task(cluster.web.push(held, "held", 600))
            for number in range(3):
                assert await cluster.web.push(free, number, 600) == 0
            # It waits for the node that says nothing; the heartbeats of its subscribers do not.
            assert not waiting.done()
            await subscriber.beat()
            await run.push_for(FROZEN_S)
            assert await waiting == 0
        finally:
            frozen.thaw()
    assert run.failed_tries == []
    assert run.is_undisturbed(*run.keys)


async def test_a_message_node_that_is_told_to_stop_fails_no_push_and_no_read(
    cluster: Cluster, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        assert await asyncio.to_thread(cluster.nodes["message-2"].stop) == 0
        await run.push_on()
        await asyncio.to_thread(cluster.nodes["message-2"].start)
    assert run.failed_tries == []
    assert run.load.failed_fetches == []
    assert run.is_undisturbed(*run.keys)


async def test_a_killed_message_node_fails_no_push_and_no_read(cluster: Cluster, seed: int) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        cluster.nodes["message-1"].kill()
        await run.push_on()
    assert run.failed_tries == []
    assert run.load.failed_fetches == []
    assert run.is_undisturbed(*run.keys)
