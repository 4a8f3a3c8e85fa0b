"""Open Redis stores the way that tests need."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from typing import Any

import redis

from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.counters import StoreCounters
from message.storage.redis.config import RedisSettings
from message.storage.redis.store import RedisStore
from message.storage.servers import REDIS_SCHEMES, read_server_url
from tests.message.storage.server_harness import ServerHarness
from tests.message.storage.store_suite import Limits
from tests.message.storage.stores import limits_with, opened
from tests.support.servers import RedisServer


def make_store(url: str, stats: Stats | None = None, limits: Any = None, **changed: Any) -> RedisStore:
    """A store on one server that is not open yet; expiry only when asked for."""
    settings = limits_with(**asdict(limits or Limits()))
    server = read_server_url(url, REDIS_SCHEMES)
    counters = StoreCounters(stats or Stats())
    return RedisStore(server, replace(RedisSettings(), servers=(url,), **changed), settings, counters)


def open_redis(
    url: str, stats: Stats | None = None, **changed: Any
) -> AbstractAsyncContextManager[RedisStore]:
    """An open store, stopped at the end."""
    return opened(make_store(url, stats, **changed))


def redis_harness(server: RedisServer) -> ServerHarness:
    """The Redis store on a server that it has for itself."""
    return ServerHarness(
        server.clock,
        make=lambda limits, stats: make_store(server.url, stats, limits, timeout_s=20.0),
        empty=lambda: make_empty(server),
        damage=lambda key, mid: damage(server.url, key, mid),
    )


def damage(url: str, key: Key, mid: Mid) -> None:
    """Put what is no member of ours in the place of one, if it is there."""
    with redis.Redis.from_url(url) as client:
        if client.zremrangebyscore(key, mid, mid):
            client.zadd(key, {f"not JSON {mid}": mid})


def make_empty(server: RedisServer) -> None:
    """Have nothing in any of its databases."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
