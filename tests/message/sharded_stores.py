"""Open stores over several servers the way that tests need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

import redis

from cluster.stats import Stats
from message.config import EmbeddedSettings, RedisSettings
from message.storage.base import MessageStore
from message.storage.build import build_redis_store
from message.storage.sharded import ShardedStore
from tests.message.store_suite import Limits
from tests.support.servers import RedisServer


@asynccontextmanager
async def open_sharded(*urls: str, stats: Stats | None = None) -> AsyncIterator[ShardedStore]:
    """An open Redis store over several servers, stopped at the end."""
    limits = replace(EmbeddedSettings(), expiry_interval_s=3600.0)
    store = build_redis_store(RedisSettings(servers=urls, timeout_s=1.0), limits, stats or Stats())
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


class ShardedHarness:
    """Three databases of one Redis as three servers, which share a clock that can be set."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._store: ShardedStore | None = None
        self._offset_s = 0.0
        self._empty()

    async def open(self, limits: Limits | None = None) -> MessageStore:
        await self._stop()
        urls = tuple(f"redis://127.0.0.1:{self._server.port}/{n}?weight={n + 1}" for n in range(3))
        settings = replace(EmbeddedSettings(), expiry_interval_s=3600.0, **asdict(limits or Limits()))
        self._store = build_redis_store(RedisSettings(servers=urls, timeout_s=20.0), settings, Stats())
        await self._store.start()
        # The stores' own searches may be queued behind this one.
        await self._store.remove_expired(1)
        return self._store

    async def close(self) -> None:
        await self._stop()
        self._empty()

    def advance(self, seconds: float) -> None:
        self._offset_s += seconds
        self._server.clock.set(f"{self._offset_s:+.3f}")

    async def _stop(self) -> None:
        if self._store is not None:
            await self._store.stop()

    def _empty(self) -> None:
        self._server.clock.set("+0")
        with redis.Redis.from_url(self._server.url) as client:
            client.flushall()
