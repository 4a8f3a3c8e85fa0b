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
from tests.support.workers import is_alive, worker_addresses, worker_pids
from tests.support.zookeeper import ZooKeeper

COMETS = ("comet-1-0", "comet-1-1")
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

    def comet_of(self, address: Address) -> str:
        return next(
            name for name, listens in worker_addresses(self.comets).items() if address in listens.values()
        )

    def tcp_of(self, name: str) -> Address:
        return worker_addresses(self.comets)[name]["tcp"]


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
