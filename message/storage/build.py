"""Makes the store of a cluster's message nodes from their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace

from cluster.errors import StorageError
from cluster.stats import Stats
from message.storage.counters import StoreCounters, show_state
from message.storage.limits import StoreLimits
from message.storage.mysql.config import MysqlSettings
from message.storage.mysql.connection import DRIVER_ERRORS, Connection, explain, is_denied
from message.storage.mysql.schema import init_schema
from message.storage.mysql.store import MysqlStore
from message.storage.redis.config import RedisSettings
from message.storage.redis.store import RedisStore
from message.storage.servers import MYSQL_SCHEMES, REDIS_SCHEMES, ServerUrl, read_server_urls
from message.storage.sharded import ServerStore, ShardedStore

# A large table of gopush-cluster is written anew, which takes as long as it takes.
SCHEMA_TIMEOUT_S = 86_400.0

_NEEDED = "its user needs SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER and INDEX on the database"


def build_redis_store(settings: RedisSettings, limits: StoreLimits, stats: Stats) -> ShardedStore:
    """The Redis store, not open yet.

    Raises:
        ConfigError: an address is wrong.
    """
    counters = StoreCounters(stats)
    return _build(
        read_server_urls(settings.servers, REDIS_SCHEMES),
        lambda server: RedisStore(server, settings, limits, counters),
        stats,
    )


def build_mysql_store(settings: MysqlSettings, limits: StoreLimits, stats: Stats) -> ShardedStore:
    """The MySQL store, not open yet.

    Raises:
        ConfigError: an address is wrong.
    """
    counters = StoreCounters(stats)
    return _build(
        read_server_urls(settings.servers, MYSQL_SCHEMES),
        lambda server: MysqlStore(server, settings, limits, counters),
        stats,
    )


def init_mysql_schema(settings: MysqlSettings) -> list[tuple[str, int]]:
    """Make the tables on every server, or bring them to the present version. Blocks.

    Returns:
        Names of the servers, with the version that each had before: 0 = no tables of ours.

    Raises:
        ConfigError: an address is wrong, or a database is of a newer version.
        StorageError: a server could not be reached or refused; those before it are done.
    """
    patient = replace(settings, timeout_s=SCHEMA_TIMEOUT_S)
    done = []
    for server in read_server_urls(settings.servers, MYSQL_SCHEMES):
        try:
            with closing(Connection(server, patient)) as connection:
                done.append((server.name, init_schema(connection)))
        except DRIVER_ERRORS as error:
            hint = f": {_NEEDED}" if is_denied(error) else ""
            raise StorageError(f"{server.name}: {explain(error)}{hint}") from error
    return done


def _build(
    servers: Iterable[ServerUrl], make: Callable[[ServerUrl], ServerStore], stats: Stats
) -> ShardedStore:
    store = ShardedStore({server: make(server) for server in servers})
    show_state(stats, lambda: store.queued, store.describe)
    return store
