"""A push stream whose lines keep their order while nodes and the store come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from encke.client import Publisher, Push, PushReply
from tests.cluster_e2e.six import six_keys
from tests.support.cluster import Cluster, running_cluster
from tests.support.eventually import eventually
from tests.support.servers import RedisServer
from tests.support.subscriber import subscribe_tcp
from tests.support.zookeeper import ZooKeeper

# Pushes are tried again while the store hangs, and done in the end.
QUICK_WEB = {"ENCKE_WEB__COMET_TIMEOUT_S": "0.5"}
FROZEN_S = 1.5
PACE_S = 0.002


@pytest.fixture
def redis_to_stop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that a test may stop. It runs."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path, zookeeper: ZooKeeper, redis_to_stop: RedisServer) -> Iterator[Cluster]:
    """A cluster without nodes, and an empty store."""
    with running_cluster(tmp_path, zookeeper, redis_to_stop) as described:
        yield described


class Lines:
    """Numbers from 0 on, pushed to some keys in turn until they are stopped."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self._replies: list[PushReply] = []
        self.is_stopped = False

    async def push(self, url: str) -> None:
        """Push all of them in one stream."""
        async with Publisher(url) as publisher:
            async for reply in publisher.stream(self._made()):
                self._replies.append(reply)

    async def _made(self) -> AsyncIterator[Push]:
        for number, key in enumerate(cycle(self._keys)):
            if self.is_stopped:
                return
            yield Push(key, number, 600)
            await asyncio.sleep(PACE_S)

    @property
    def failed(self) -> list[PushReply]:
        """What was answered as not done."""
        return [reply for reply in self._replies if not reply.results]

    def of(self, key: str) -> list[int]:
        """The numbers that were pushed to a key."""
        return list(range(self._keys.index(key), len(self._replies), len(self._keys)))

    async def wait_more(self, count: int = 50) -> None:
        """Wait until so many more were answered."""
        wanted = len(self._replies) + count
        await eventually(lambda: len(self._replies) >= wanted, deadline_s=30)


async def test_lines_keep_their_order_while_comet_nodes_die_and_the_store_hangs(
    cluster: Cluster, redis_to_stop: RedisServer
) -> None:
    messages = [cluster.node("message", name) for name in ("message-1", "message-2")]
    web = cluster.node("web", "web-1", environ=QUICK_WEB)
    cluster.start(("comet", "comet-1"), ("comet", "comet-2"), others=[*messages, web])
    host, port = cluster.web.addresses["admin"]
    keys = six_keys()
    lines = Lines(keys)
    pushing = asyncio.create_task(lines.push(f"http://{host}:{port}"))
    await lines.wait_more()
    redis_to_stop.freeze()
    try:
        await asyncio.sleep(FROZEN_S)
    finally:
        redis_to_stop.thaw()
    await lines.wait_more()
    cluster.nodes["comet-2"].kill()
    await lines.wait_more(500)
    lines.is_stopped = True
    await pushing
    assert lines.failed == []
    for key in keys:
        await cluster.wait_owner(key, "comet-1")
        phone = await subscribe_tcp(cluster.tcp_of("comet-1"), key, version="2", mid=0)
        documents = await phone.documents(len(lines.of(key)))
        assert [document.value["msg"] for document in documents] == lines.of(key)
        await phone.close()
