"""Nodes that ZooKeeper's news does not reach, or late, while everything else does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy

TWO = ("comet-1", "comet-2")
THREE = ("comet-1", "comet-2", "comet-3")
# What it sends to the wrong node is to fail soon.
IMPATIENT_WEB = "[web]\nrequest_timeout_s = 0.5\n"
MESSAGES = (("message", "message-1"), ("message", "message-2"))


@contextlib.asynccontextmanager
async def proxy_of(cluster: Cluster) -> AsyncIterator[FaultProxy]:
    """A way to ZooKeeper that can be cut."""
    proxy = FaultProxy(cluster.zookeeper.address)
    await proxy.start()
    try:
        yield proxy
    finally:
        # Who uses it would wait for its answer.
        cluster.kill()
        await proxy.stop()


async def test_a_comet_node_that_is_cut_off_from_zookeeper_lets_go_of_its_keys_and_comes_back(
    cluster: Cluster, seed: int
) -> None:
    await asyncio.to_thread(cluster.start, *MESSAGES, ("comet", "comet-1"), ("web", "web-1"))
    own = owned_by(TWO, "comet-2", 3)
    async with proxy_of(cluster) as proxy:
        second = cluster.node("comet", "comet-2", zookeeper=proxy.address)
        await asyncio.to_thread(second.start)
        run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
        async with run.under_way():
            async with run.fault():
                proxy.stall()
                # It runs, and its subscribers are connected: it has to find out by itself.
                await run.wait_served_by("comet-1", keys=own)
            run.forgive()
            await run.push_on()
            assert run.failed_tries == []
            proxy.heal()
            await run.wait_served_by("comet-2", keys=own)
            await run.push_on()
        assert run.failed_tries == []
        assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))
        for reader in run.readers_of(*own):
            assert [end.code for end in reader.ends] == [4001, 4001]


async def test_a_comet_node_that_is_cut_off_for_less_than_its_session_keeps_everything(
    cluster: Cluster, seed: int
) -> None:
    await asyncio.to_thread(cluster.start, *MESSAGES, ("comet", "comet-1"), ("web", "web-1"))
    async with proxy_of(cluster) as proxy:
        second = cluster.node("comet", "comet-2", zookeeper=proxy.address, session_s=10.0)
        await asyncio.to_thread(second.start)
        run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
        async with run.under_way():
            for fault in (proxy.stall, proxy.refuse):
                fault()
                await run.push_for(1.0)
                proxy.heal()
                await run.push_on()
        assert run.failed_tries == []
        assert run.is_undisturbed(*run.keys)


async def test_a_web_node_with_an_old_view_of_the_ring_answers_nothing_that_is_not_so(
    cluster: Cluster, seed: int
) -> None:
    await asyncio.to_thread(cluster.start, *MESSAGES, *(("comet", name) for name in TWO), ("web", "web-1"))
    keys = [key for name in THREE for key in owned_by(THREE, name, 2)]
    async with proxy_of(cluster) as proxy:
        second = cluster.node("web", "web-2", zookeeper=proxy.address, more=IMPATIENT_WEB)
        await asyncio.to_thread(second.start)
        run = ClusterRun(cluster, keys, seed)
        async with run.under_way():
            proxy.stall()
            third = cluster.node("comet", "comet-3")
            await asyncio.to_thread(third.start)
            await run.wait_served_by("comet-3", keys=owned_by(THREE, "comet-3", 2))
            # The old view is right for most keys; what it sends wrong is refused, and done by the other.
            await run.push_on()
            failed = run.failed_tries
            proxy.heal()
            await eventually(lambda: proxy.connections > 0)
            await run.push_on()
        assert {one.web for one in failed} <= {"web-2"}


async def test_views_of_the_ring_that_come_late_fail_no_push(cluster: Cluster, seed: int) -> None:
    await asyncio.to_thread(cluster.start, *MESSAGES, ("comet", "comet-1"), ("web", "web-1"))
    keys = [key for name in THREE for key in owned_by(THREE, name, 2)]
    async with proxy_of(cluster) as of_web, proxy_of(cluster) as of_comet:
        late = [
            cluster.node("web", "web-2", zookeeper=of_web.address, session_s=10.0),
            cluster.node("comet", "comet-2", zookeeper=of_comet.address, session_s=10.0),
        ]
        for server in late:
            await asyncio.to_thread(server.start)
        run = ClusterRun(cluster, keys, seed)
        async with run.under_way():
            of_web.delay_s, of_comet.delay_s = run.random.choice(((0.1, 0.0), (0.0, 0.1), (0.1, 0.05)))
            third = cluster.node("comet", "comet-3")
            await asyncio.to_thread(third.start)
            await run.wait_served_by("comet-3", keys=owned_by(THREE, "comet-3", 2))
            await run.push_on()
            assert await asyncio.to_thread(third.stop) == 0
            await run.wait_served_by(*TWO)
        assert run.failed_tries == []


async def test_a_cut_off_comet_node_lets_go_though_no_message_node_saw_its_session_end(
    cluster: Cluster, seed: int
) -> None:
    await asyncio.to_thread(cluster.start, *MESSAGES, ("comet", "comet-1"), ("web", "web-1"))
    own = owned_by(TWO, "comet-2", 3)
    async with proxy_of(cluster) as proxy:
        # Long enough for message nodes to be back before it gives its keys up for want of an answer.
        second = cluster.node("comet", "comet-2", zookeeper=proxy.address, session_s=4.0)
        await asyncio.to_thread(second.start)
        run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
        async with run.under_way():
            async with run.fault():
                proxy.stall()
                await eventually(lambda: "ZooKeeper is away" in second.log)
                for _, name in MESSAGES:
                    cluster.nodes[name].kill()
                await cluster.wait_owner(own[0], "comet-1")
                await asyncio.gather(*(asyncio.to_thread(cluster.nodes[name].start) for _, name in MESSAGES))
                await run.wait_served_by("comet-1", keys=own)
            await run.push_on()
            proxy.heal()
            await run.wait_served_by("comet-2", keys=own)
        for reader in run.readers_of(*own):
            assert reader.ends[0].code == 4001


async def test_a_comet_and_a_web_node_that_are_cut_off_together_accept_nothing_for_lost_keys(
    cluster: Cluster, seed: int
) -> None:
    await asyncio.to_thread(cluster.start, *MESSAGES, ("comet", "comet-1"), ("web", "web-1"))
    own = owned_by(TWO, "comet-2", 3)
    async with proxy_of(cluster) as proxy:
        # Its pushes go to the comet node that lives in the past, as it does.
        cut_off = [
            cluster.node("comet", "comet-2", zookeeper=proxy.address),
            cluster.node("web", "web-2", zookeeper=proxy.address, more=IMPATIENT_WEB),
        ]
        for server in cut_off:
            await asyncio.to_thread(server.start)
        run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
        async with run.under_way():
            async with run.fault():
                proxy.stall()
                await run.wait_served_by("comet-1", keys=own)
            run.forgive()
            await run.push_on()
            assert {one.web for one in run.failed_tries} == {"web-2"}
            proxy.heal()
            await run.wait_served_by("comet-2", keys=own)
        assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))
