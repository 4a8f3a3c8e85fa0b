"""Open Redis stores the way that tests need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

import redis

from cluster.stats import Stats
from message.config import EmbeddedSettings, RedisSettings
from message.storage.base import MessageStore
from message.storage.counters import StoreCounters
from message.storage.redis import RedisStore
from message.storage.servers import REDIS_SCHEMES, read_server_url
from tests.message.store_suite import Limits
from tests.support.servers import RedisServer


def make_store(url: str, stats: Stats | None = None, limits: Any = None, **changed: Any) -> RedisStore:
    """A store on one server that is not open yet; expiry only when asked for."""
    settings = replace(EmbeddedSettings(), expiry_interval_s=3600.0, **asdict(limits or Limits()))
    server = read_server_url(url, REDIS_SCHEMES)
    counters = StoreCounters(stats or Stats())
    return RedisStore(server, replace(RedisSettings(), servers=(url,), **changed), settings, counters)


@asynccontextmanager
async def open_redis(url: str, stats: Stats | None = None, **changed: Any) -> AsyncIterator[RedisStore]:
    """An open store, stopped at the end."""
    store = make_store(url, stats, **changed)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


class RedisHarness:
    """The Redis store on a server that it has for itself."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._store: RedisStore | None = None
        self._offset_s = 0.0
        self._empty()

    async def open(self, limits: Limits | None = None) -> MessageStore:
        await self._stop()
        self._store = make_store(self._server.url, limits=limits, timeout_s=20.0)
        await self._store.start()
        # The store's own search may be queued behind this one.
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
