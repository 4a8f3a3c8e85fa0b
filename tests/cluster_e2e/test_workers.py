"""`encke comet --workers`: each worker is a node of the cluster like any other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.eventually import eventually
from tests.support.peer import Address
from tests.support.servers import RedisServer
from tests.support.system import Server
from tests.support.workers import is_alive, worker_addresses, worker_at, worker_pids
from tests.support.zookeeper import ZooKeeper

COMETS = ("comet-1-0", "comet-1-1")
# Another node, which no supervisor runs.
OTHER = "comet-2"
ALL = (*COMETS, OTHER)
KEYS = [key for name in COMETS for key in owned_by(COMETS, name, 2, "w")]


class Workers(Cluster):
    """A cluster whose comet nodes are workers of one supervisor."""

    def start_all(self) -> None:
        """Start a node of each kind, all at once."""
        flags = ("--workers", str(len(COMETS)))
        described = [
            self.node("message", "message-1"),
            self.node("web", "web-1"),
            self.node("comet", "comet-1", flags=flags),
        ]
        with ThreadPoolExecutor(len(described)) as threads:
            list(threads.map(Server.start, described))

    @property
    def comets(self) -> Server:
        return self.nodes["comet-1"]

    def comet_of(self, address: Address) -> str | None:
        return worker_at(self.comets, address) or super().comet_of(address)

    def tcp_of(self, name: str) -> Address:
        listens = worker_addresses(self.comets).get(name)
        return super().tcp_of(name) if listens is None else listens["tcp"]


@pytest.fixture
def workers(tmp_path: Path, zookeeper: ZooKeeper, empty_redis: RedisServer) -> Iterator[Workers]:
    """A node of each kind that serves."""
    described = Workers(tmp_path, zookeeper, empty_redis)
    try:
        described.start_all()
        yield described
    finally:
        described.kill()


async def test_a_killed_worker_comes_back_and_nobody_misses_anything(workers: Workers, seed: int) -> None:
    assert set(worker_pids(workers.comets)) == set(COMETS)
    for name in COMETS:
        await workers.wait_owner(owned_by(COMETS, name, 1, "w")[0], name)
    run = ClusterRun(workers, KEYS, seed)
    async with run.under_way(), run.fault():
        pid = worker_pids(workers.comets)["comet-1-1"]
        before = worker_addresses(workers.comets)["comet-1-1"]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: workers.comets.output.count("comet-1-1: ready") == 2)
        await run.wait_served_by("comet-1-1", keys=owned_by(COMETS, "comet-1-1", 2, "w"))
    assert worker_addresses(workers.comets)["comet-1-1"] == before
    # Those of the other one were not touched.
    assert run.is_undisturbed(*owned_by(COMETS, "comet-1-0", 2, "w"))

    pids = worker_pids(workers.comets).values()
    assert await asyncio.to_thread(workers.comets.stop) == 0
    assert not any(map(is_alive, pids))


async def test_workers_that_are_told_to_stop_lose_and_repeat_nothing_and_fail_no_push(
    workers: Workers, seed: int
) -> None:
    await asyncio.to_thread(workers.start, ("comet", OTHER))
    keys = {name: owned_by(ALL, name, 2, "w") for name in ALL}
    for name in ALL:
        await workers.wait_owner(keys[name][0], name)
    run = ClusterRun(workers, [key for of_one in keys.values() for key in of_one], seed)
    pids = worker_pids(workers.comets).values()
    async with run.under_way():
        # To the supervisor alone.
        assert await asyncio.to_thread(workers.comets.stop) == 0
        await run.wait_served_by(OTHER)
    assert run.failed_tries == []
    assert run.load.failed_fetches == []
    assert not any(map(is_alive, pids))
    # Where they resumed, or those of the one that left first at the other one of the two.
    for reader in run.readers_of(*keys[COMETS[0]], *keys[COMETS[1]]):
        assert {end.code for end in reader.ends} == {1001}
        assert reader.visited[-1] == OTHER
    assert run.is_undisturbed(*keys[OTHER])
    assert not any(reader.gaps for reader in run.readers)
    assert "ERROR" not in workers.comets.log
