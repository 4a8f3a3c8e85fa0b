"""Open stores over several servers the way that tests need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

from cluster.stats import Stats
from message.storage.build import build_redis_store
from message.storage.config import EmbeddedSettings, RedisSettings
from message.storage.sharded import ShardedStore
from tests.message.redis_stores import make_empty
from tests.message.server_harness import ServerHarness
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


def sharded_harness(server: RedisServer) -> ServerHarness:
    """Three databases of one Redis as three servers, which share a clock that can be set."""
    urls = tuple(f"redis://127.0.0.1:{server.port}/{n}?weight={n + 1}" for n in range(3))

    def make(limits: Limits) -> ShardedStore:
        settings = replace(EmbeddedSettings(), expiry_interval_s=3600.0, **asdict(limits))
        return build_redis_store(RedisSettings(servers=urls, timeout_s=20.0), settings, Stats())

    return ServerHarness(server.clock, make=make, empty=lambda: make_empty(server))
