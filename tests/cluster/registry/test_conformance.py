"""Every registry against the one conformance suite."""

from __future__ import annotations

import pytest

from tests.cluster.registry.registries import LocalHarness, MemoryHarness, ZooKeeperHarness
from tests.cluster.registry.suite import Harness, RegistrySuite
from tests.support.zookeeper import ZooKeeper


class TestMemoryRegistry(RegistrySuite):
    """One process."""

    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()


class TestLocalRegistry(RegistrySuite):
    """A process that starts the others."""

    @pytest.fixture
    def harness(self) -> Harness:
        return LocalHarness()


class TestZooKeeperRegistry(RegistrySuite):
    """ZooKeeper."""

    @pytest.fixture
    def harness(self, zookeeper: ZooKeeper) -> Harness:
        return ZooKeeperHarness(zookeeper)
