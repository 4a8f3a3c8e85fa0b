"""One ZooKeeper and one Redis for all tests of this folder; each test has paths and keys of its own.

Tests that take a seed run once in `make test`. For more of them, and for all with one seed after the other:

    ENCKE_TEST_SEEDS=10 make test ARGS=tests/cluster_e2e
    make soak MINUTES=60
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.cluster import Cluster, running_cluster
from tests.support.servers import RedisServer
from tests.support.zookeeper import ZooKeeper


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many seeds as the environment asks for; one if it does not."""
    if "seed" in metafunc.fixturenames:
        first = int(os.environ.get("ENCKE_TEST_FIRST_SEED", "1"))
        metafunc.parametrize("seed", range(first, first + int(os.environ.get("ENCKE_TEST_SEEDS", "1"))))


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    """A ZooKeeper that runs."""
    with ZooKeeper(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that runs."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def empty_redis(redis: RedisServer) -> RedisServer:
    """The Redis, with nothing in it: a store that knows the ids of the test before takes ours for repeats."""
    with Redis.from_url(redis.url) as client:
        client.flushall()
    return redis


@pytest.fixture
def cluster(tmp_path: Path, zookeeper: ZooKeeper, empty_redis: RedisServer) -> Iterator[Cluster]:
    """A cluster without nodes, and an empty store."""
    with running_cluster(tmp_path, zookeeper, empty_redis) as described:
        yield described
