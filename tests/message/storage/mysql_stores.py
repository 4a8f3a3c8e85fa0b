"""Open MySQL stores the way that tests need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import asdict, replace
from typing import Any

import pymysql

from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.counters import StoreCounters
from message.storage.mysql.config import MysqlSettings
from message.storage.mysql.connection import Connection
from message.storage.mysql.schema import init_schema
from message.storage.mysql.store import MysqlStore
from message.storage.servers import MYSQL_SCHEMES, read_server_url
from tests.message.storage.server_harness import ServerHarness
from tests.message.storage.store_suite import Limits
from tests.message.storage.stores import limits_with, opened
from tests.support.servers import MariaServer

DATABASE = "encke_test"
TABLES = ("private_msg", "encke_keys", "encke_ids", "encke_devices", "encke_incarnations")


def query(server: MariaServer, *statements: str, database: str | None = DATABASE) -> Sequence[Sequence[Any]]:
    """Run statements as an operator would; the rows of the last."""
    with (
        closing(
            pymysql.connect(
                host="127.0.0.1",
                port=server.port,
                user="root",
                database=database,
                autocommit=True,
                ssl_disabled=True,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def make_empty(server: MariaServer) -> None:
    """Have a database with our tables and nothing in them."""
    query(server, f"CREATE DATABASE IF NOT EXISTS {DATABASE}", database=None)
    connection = Connection(read_server_url(server.url(DATABASE), MYSQL_SCHEMES), MysqlSettings())
    try:
        init_schema(connection)
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE encke_store SET clock = 0, floor = 0")
    finally:
        connection.close()


def make_store(url: str, stats: Stats | None = None, limits: Any = None, **changed: Any) -> MysqlStore:
    """A store on one server that is not open yet; expiry only when asked for."""
    settings = limits_with(**asdict(limits or Limits()))
    server = read_server_url(url, MYSQL_SCHEMES)
    counters = StoreCounters(stats or Stats())
    return MysqlStore(server, replace(MysqlSettings(), servers=(url,), **changed), settings, counters)


def open_mysql(
    url: str, stats: Stats | None = None, **changed: Any
) -> AbstractAsyncContextManager[MysqlStore]:
    """An open store, stopped at the end."""
    return opened(make_store(url, stats, **changed))


def mysql_harness(server: MariaServer) -> ServerHarness:
    """The MySQL store on a server that it has for itself."""

    def damage(key: Key, mid: Mid) -> None:
        query(server, f"UPDATE private_msg SET msg = '{{' WHERE skey = '{key}' AND mid = {mid}")

    return ServerHarness(
        server.clock,
        make=lambda limits, stats: make_store(server.url(DATABASE), stats, limits, timeout_s=20.0),
        empty=lambda: make_empty(server),
        damage=damage,
    )
