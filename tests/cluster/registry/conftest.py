"""The ZooKeeper that the tests here share. Each test has paths of its own; who kills one starts his own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.registry.registries import Seen, ZooKeeperHarness
from tests.support.eventually import eventually
from tests.support.zookeeper import ZooKeeper


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    with ZooKeeper(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server


@pytest.fixture
async def harness(zookeeper: ZooKeeper) -> AsyncIterator[ZooKeeperHarness]:
    """Registries on the ZooKeeper that all tests share."""
    harness = ZooKeeperHarness(zookeeper)
    yield harness
    await harness.close()


@pytest.fixture
async def seen(harness: ZooKeeperHarness) -> Seen:
    registry = await harness.connect()
    seen = Seen(registry)
    await eventually(lambda: seen.snapshots)
    return seen
