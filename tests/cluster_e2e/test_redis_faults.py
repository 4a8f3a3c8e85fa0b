"""Redis that dies, hangs, is full, refuses, or has another clock than its neighbour, while pushes go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cluster.model import Key
from cluster.storering import StoreRing
from tests.cluster_e2e.six import COMETS, NODES, six_keys, started_run
from tests.support.cluster import Cluster, owned_by, running_cluster
from tests.support.eventually import eventually
from tests.support.servers import RedisServer
from tests.support.zookeeper import ZooKeeper

AWAY_S = 1.5
FROZEN_S = 5.0
INTERNAL = 65535
# A web node that takes few requests, and has more time for a push than a test: the pushes to
# a server that is away would fill it, and stay.
NARROW_WEB = """
[web]
max_requests = 400
request_timeout_s = 60
comet_timeout_s = 40
"""
# What it holds of them.
HELD = 100


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Two servers that a test may do anything with; the second has a clock of its own. Both run."""
    with (
        RedisServer(tmp_path_factory.mktemp("redis-a")) as one,
        RedisServer(tmp_path_factory.mktemp("redis-b"), has_own_time=True) as other,
    ):
        yield [one, other]


@pytest.fixture
def sole(tmp_path: Path, zookeeper: ZooKeeper, servers: list[RedisServer]) -> Iterator[Cluster]:
    """A cluster without nodes whose store is the first of the servers."""
    with running_cluster(tmp_path, zookeeper, servers[0]) as described:
        yield described


@pytest.fixture
def shared(tmp_path: Path, zookeeper: ZooKeeper, servers: list[RedisServer]) -> Iterator[Cluster]:
    """A cluster without nodes in which both servers share the keys."""
    with running_cluster(tmp_path, zookeeper, *servers) as described:
        yield described


async def test_redis_that_is_killed_and_started_again_loses_nothing(
    sole: Cluster, servers: list[RedisServer], seed: int
) -> None:
    run = started_run(sole, seed)
    async with run.under_way(), run.fault():
        servers[0].kill()
        await run.push_for(AWAY_S)
        await asyncio.to_thread(servers[0].start)
        await run.push_on(50)
    assert run.is_undisturbed(*run.keys)


async def test_redis_that_hangs_is_used_again_when_it_goes_on(
    sole: Cluster, servers: list[RedisServer], seed: int
) -> None:
    run = started_run(sole, seed)
    async with run.under_way(), run.fault():
        servers[0].freeze()
        try:
            await run.push_for(FROZEN_S)
        finally:
            servers[0].thaw()
        await run.push_on(50)
    assert run.is_undisturbed(*run.keys)


async def test_redis_that_refuses_to_write_is_answered_so_and_what_is_stored_nowhere_goes_on(
    sole: Cluster, servers: list[RedisServer], seed: int
) -> None:
    run = started_run(sole, seed)
    key = run.keys[0]
    with Redis.from_url(servers[0].url) as operator:
        async with run.under_way():
            for refuse, allow in (
                (lambda: operator.config_set("maxmemory", 1), lambda: operator.config_set("maxmemory", 0)),
                (lambda: operator.replicaof("127.0.0.1", 1), lambda: operator.replicaof("NO", "ONE")),
            ):
                async with run.fault():
                    refuse()
                    try:
                        assert await sole.web.push("refused", "never", 600) == INTERNAL
                        assert await sole.web.push("refused", "not stored", 0) == 0
                        assert await sole.web.fetch(key)
                    finally:
                        allow()
                    await run.push_on(50)
            assert await sole.web.fetch("refused") == []
    assert run.is_undisturbed(*run.keys)


async def test_redis_that_is_away_fails_its_own_keys_only(
    shared: Cluster, servers: list[RedisServer], seed: int
) -> None:
    run = started_run(shared, seed)
    ring = StoreRing({server.url: 1 for server in servers})
    probes = [f"p{number}" for number in range(12)]
    async with run.under_way(), run.fault():
        servers[1].kill()
        # Those of one server are answered after all the tries that a push has time for.
        answers = await asyncio.gather(*(shared.web.push(key, 1, 600) for key in probes))
        await asyncio.to_thread(servers[1].start)
        await run.push_on(50)
    done = {key for key, ret in zip(probes, answers, strict=True) if ret == 0}
    assert done == {key for key in probes if ring.server_of(Key(key)) == servers[0].url}
    assert 0 < len(done) < len(probes)
    assert run.is_undisturbed(*run.keys)


async def test_pushes_to_a_redis_that_is_away_leave_room_for_those_to_the_others(
    shared: Cluster, servers: list[RedisServer]
) -> None:
    web = shared.node("web", "web-1", more=NARROW_WEB)
    shared.start(*NODES[:-2], others=[web])
    ring = StoreRing({server.url: 1 for server in servers})
    keys = [f"p{number}" for number in range(1000)]
    lost = [key for key in keys if ring.server_of(Key(key)) == servers[1].url][:350]
    kept = [key for key in keys if ring.server_of(Key(key)) == servers[0].url][:50]
    servers[1].kill()
    held: list[asyncio.Task[int]] = []

    def unanswered() -> list[asyncio.Task[int]]:
        return [task for task in held if not task.done()]

    try:
        for count in (350, 250):
            tasks = [asyncio.create_task(web.push(key, 1, 600)) for key in lost[:count]]
            done = await asyncio.gather(*(web.push(key, 1, 600) for key in kept[:40]))
            assert set(done) == {0}
            held += tasks
            await eventually(lambda: len(unanswered()) <= HELD)
        assert {task.result() for task in held if task.done()} == {INTERNAL}
        rest = unanswered()
        assert len(rest) == HELD
        # The server is back, and so are they.
        await asyncio.to_thread(servers[1].start)
        assert set(await asyncio.gather(*rest)) == {0}
    finally:
        for task in held:
            task.cancel()
        await asyncio.wait(held)


@pytest.mark.parametrize("offset", ["+5s", "-5s"])
async def test_redis_servers_whose_clocks_differ_keep_every_order(
    shared: Cluster, servers: list[RedisServer], offset: str, seed: int
) -> None:
    servers[1].clock.set(offset)
    run = started_run(shared, seed)
    lost = owned_by(COMETS, "comet-2", 3)
    async with run.under_way(), run.fault():
        shared.nodes["comet-2"].kill()
        await run.wait_served_by("comet-1", keys=lost)
        # What failed until now was in doubt because of the kill.
        failed_before = len(run.failed_tries)
        await run.push_on(50)
    assert len(run.failed_tries) == failed_before


async def test_stored_nonsense_is_passed_over(cluster: Cluster, redis: RedisServer) -> None:
    started_run(cluster, 1)
    key = six_keys()[0]
    assert await cluster.web.push(key, "first", 600) == 0
    with Redis.from_url(redis.url) as operator:
        (mid,) = (int(message["mid"]) for message in await cluster.web.fetch(key))
        operator.zadd(key, {b"not JSON": mid + 80, b'{"msg":"\xff"}': mid + 160})
    assert await cluster.web.push(key, "second", 600) == 0
    assert [message["msg"] for message in await cluster.web.fetch(key)] == ["first", "second"]
    async with cluster.nodes["comet-1"].tcp(key, version="2", mid=0) as subscriber:
        documents = await subscriber.documents(2)
    assert [document.value["msg"] for document in documents] == ["first", "second"]
    await eventually(lambda: "WARNING" in cluster.nodes["message-1"].log + cluster.nodes["message-2"].log)


async def test_what_was_pushed_before_a_deletion_stays_away_and_what_comes_later_stays(
    cluster: Cluster, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        for key in run.random.choices(run.keys, k=8):
            await run.load.delete(key)
            await run.load.fetch(key)
            await run.push_on(20)
    assert run.failed_tries == []
    assert {end.code for reader in run.readers for end in reader.ends} == {4004}
