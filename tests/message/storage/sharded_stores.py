"""Open stores over several servers the way that tests need."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import asdict

from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.build import build_redis_store
from message.storage.redis.config import RedisSettings
from message.storage.sharded import ShardedStore
from tests.message.storage.redis_stores import damage, make_empty
from tests.message.storage.server_harness import ServerHarness
from tests.message.storage.store_suite import Limits
from tests.message.storage.stores import limits_with, opened
from tests.support.servers import RedisServer


def open_sharded(
    *urls: str, stats: Stats | None = None, timeout_s: float = 1.0
) -> AbstractAsyncContextManager[ShardedStore]:
    """An open Redis store over several servers, stopped at the end."""
    settings = RedisSettings(servers=urls, timeout_s=timeout_s)
    return opened(build_redis_store(settings, limits_with(), stats or Stats()))


def sharded_harness(server: RedisServer) -> ServerHarness:
    """Three databases of one Redis as three servers, which share a clock that can be set."""
    urls = tuple(f"redis://127.0.0.1:{server.port}/{n}?weight={n + 1}" for n in range(3))

    def make(limits: Limits, stats: Stats) -> ShardedStore:
        settings = RedisSettings(servers=urls, timeout_s=20.0)
        return build_redis_store(settings, limits_with(**asdict(limits)), stats)

    def damage_there(key: Key, mid: Mid) -> None:
        for url in urls:
            damage(url.partition("?")[0], key, mid)

    return ServerHarness(server.clock, make=make, empty=lambda: make_empty(server), damage=damage_there)
