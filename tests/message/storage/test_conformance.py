"""Every backend against the one conformance suite."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.base import MessageStore
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.clocks import SteppedClock
from tests.message.storage.mysql_stores import mysql_harness
from tests.message.storage.redis_stores import redis_harness
from tests.message.storage.sharded_stores import sharded_harness
from tests.message.storage.store_suite import Harness, Limits, StoreSuite, unreadable
from tests.message.storage.stores import damage, settings_for
from tests.support.servers import MariaServer, RedisServer


class EmbeddedHarness:
    """The embedded store in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._clock = SteppedClock()
        self._store: EmbeddedStore | None = None
        self._stats = Stats()

    async def open(self, limits: Limits | None = None) -> MessageStore:
        await self._stop()
        settings = settings_for(self._directory, **asdict(limits or Limits()))
        self._stats = Stats()
        self._store = EmbeddedStore(settings, self._stats, wall_ns=self._clock.wall_ns)
        await self._store.start()
        return self._store

    async def close(self) -> None:
        await self._stop()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def damage(self, key: Key, mid: Mid) -> None:
        damage(self._directory, mid)

    def left_out(self) -> int:
        return unreadable(self._stats)

    async def _stop(self) -> None:
        if self._store is not None:
            await self._store.stop()


class TestEmbeddedStore(StoreSuite):
    """SQLite."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return EmbeddedHarness(tmp_path / "data")


class TestRedisStore(StoreSuite):
    """Redis."""

    @pytest.fixture
    def harness(self, timed_redis: RedisServer) -> Harness:
        return redis_harness(timed_redis)


class TestMysqlStore(StoreSuite):
    """MariaDB."""

    @pytest.fixture
    def harness(self, timed_mariadb: MariaServer) -> Harness:
        return mysql_harness(timed_mariadb)


class TestShardedStore(StoreSuite):
    """Several servers as one."""

    @pytest.fixture
    def harness(self, timed_redis: RedisServer) -> Harness:
        return sharded_harness(timed_redis)
