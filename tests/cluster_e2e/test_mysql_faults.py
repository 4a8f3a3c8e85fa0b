"""MariaDB that dies, hangs, refuses, or holds a lock, while pushes go on in a cluster that stores there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_e2e.six import six_keys, started_run
from tests.message.storage.mysql_stores import DATABASE, make_empty, query
from tests.support.cluster import Cluster, running_cluster
from tests.support.cluster_run import ClusterRun
from tests.support.history import Push
from tests.support.servers import MariaServer
from tests.support.zookeeper import ZooKeeper

AWAY_S = 1.5
FROZEN_S = 5.0
LOCKED_S = 3.0
INTERNAL = 65535
OLD_MID = 16_000_000_000_000_000


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaServer]:
    """A MariaDB with a user who may do no more than a store needs. Tests leave it running, and as it was."""
    with MariaServer(tmp_path_factory.mktemp("maria")) as server:
        make_empty(server)
        query(
            server,
            "CREATE USER encke@'127.0.0.1'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {DATABASE}.* TO encke@'127.0.0.1'",
        )
        yield server


@pytest.fixture
def cluster(tmp_path: Path, zookeeper: ZooKeeper, maria: MariaServer) -> Iterator[Cluster]:
    """A cluster without nodes, whose store is empty."""
    make_empty(maria)
    url = f"mysql://encke@127.0.0.1:{maria.port}/{DATABASE}"
    with running_cluster(tmp_path, zookeeper, mysql=url) as described:
        yield described


async def test_mariadb_that_is_killed_and_started_again_loses_nothing(
    cluster: Cluster, maria: MariaServer, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way(), run.fault():
        maria.kill()
        await run.push_for(AWAY_S)
        await asyncio.to_thread(maria.start)
        await run.push_on(50)
    assert run.is_undisturbed(*run.keys)


async def test_mariadb_that_hangs_is_used_again_when_it_goes_on(
    cluster: Cluster, maria: MariaServer, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way(), run.fault():
        maria.freeze()
        try:
            await run.push_for(FROZEN_S)
        finally:
            maria.thaw()
        await run.push_on(50)
    assert run.is_undisturbed(*run.keys)


async def test_mariadb_that_refuses_cuts_off_or_locks_loses_nothing_and_is_used_again(
    cluster: Cluster, maria: MariaServer, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        async with run.fault():
            query(maria, "SET GLOBAL read_only = 1")
            try:
                assert await cluster.web.push("refused", "never", 600) == INTERNAL
                assert await cluster.web.push("refused", "not stored", 0) == 0
                assert await cluster.web.fetch(run.keys[0])
            finally:
                query(maria, "SET GLOBAL read_only = 0")
            await run.push_on(50)
        assert await cluster.web.fetch("refused") == []
        failed_before = len(run.failed_tries)
        for _ in range(3):
            await asyncio.to_thread(cut_off, maria)
            await run.push_on(30)
        # A save whose connection is cut is asked for again in its time.
        assert len(run.failed_tries) == failed_before
        async with run.fault():
            await locked(maria, run, LOCKED_S)
            await run.push_on(50)
    assert run.is_undisturbed(*run.keys)


async def test_stored_nonsense_is_passed_over(cluster: Cluster, maria: MariaServer) -> None:
    started_run(cluster, 1)
    key = six_keys()[0]
    junk = b'{"broken'.hex()
    query(
        maria,
        f"INSERT INTO private_msg (skey, mid, ttl, msg) VALUES ('{key}', {OLD_MID}, 9999999999, x'{junk}')",
    )
    for text in ("first", "second"):
        assert await cluster.web.push(key, text, 600) == 0
    assert [message["msg"] for message in await cluster.web.fetch(key)] == ["first", "second"]
    async with cluster.nodes["comet-1"].tcp(key, version="2", mid=0) as subscriber:
        documents = await subscriber.documents(2)
    assert [document.value["msg"] for document in documents] == ["first", "second"]


def cut_off(maria: MariaServer) -> None:
    """End every connection of the stores."""
    for (number,) in query(maria, "SELECT id FROM information_schema.processlist WHERE user = 'encke'"):
        # It may have gone by itself.
        query(maria, f"BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; KILL {number}; END")


async def locked(maria: MariaServer, run: ClusterRun, seconds: float) -> None:
    """Let somebody hold the table of messages for a while."""
    begun = sum(isinstance(event, Push) for event in run.load.history.events)
    holding = asyncio.create_task(
        asyncio.to_thread(
            query, maria, "LOCK TABLES private_msg WRITE", f"SELECT SLEEP({seconds})", "UNLOCK TABLES"
        )
    )
    await holding
    assert sum(isinstance(event, Push) for event in run.load.history.events) > begun
