"""What a save costs in each store of a cluster, with a real server beside it.

    python -m bench.stores                     Redis and MariaDB, 64 saves in flight on 64 keys
    python -m bench.stores --keys 20000        every save another key
    python -m bench.stores --redis everysec    not synced before every answer

CPU per save is told for our process (all threads) and for the server. Bare:
one ZADD of the same size in redis-py's pipelines of 64, the least that any
design pays. On a shared machine compare ratios within one run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop

from bench.saves import PAYLOAD, save_many
from bench.usage import cpu_s
from cluster.model import Key
from cluster.stats import Stats
from encke.commands.arguments import Parser
from message.storage.base import MessageStore
from message.storage.build import build_mysql_store, build_redis_store, init_mysql_schema
from message.storage.embedded.config import EmbeddedSettings
from message.storage.mysql.config import MysqlSettings
from message.storage.redis.config import RedisSettings
from tests.support.servers import MariaServer, RedisServer

# MariaDB's own default.
BUFFER_POOL = "--innodb-buffer-pool-size=128M"


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--saves", type=int, default=40_000)
    parser.add_argument("--keys", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--redis", choices=("always", "everysec", "no"), default="always")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="encke-bench-"))
    try:
        print(f"{'':24} {'ours':>8} {'server':>8}   CPU us a save {'saves/s':>12}")
        uvloop.run(measure_redis(directory / "redis", options))
        uvloop.run(measure_mysql(directory / "mariadb", options))
    finally:
        shutil.rmtree(directory)


async def measure_redis(directory: Path, options: argparse.Namespace) -> None:
    """The Redis store, and the bare insert."""
    with RedisServer(directory, "--appendfsync", options.redis) as server:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await tell("redis, bare ZADD", server.pid, options.saves, lambda: add_bare(client, options))
            await client.flushall()
        store = build_redis_store(RedisSettings(servers=(server.url,)), EmbeddedSettings(), Stats())
        await measure_saves(f"redis, {options.redis}", store, server.pid, options)


async def measure_mysql(directory: Path, options: argparse.Namespace) -> None:
    """The MySQL store."""
    with MariaServer(directory, BUFFER_POOL) as server:
        server.make_database("bench")
        settings = replace(MysqlSettings(), servers=(server.url("bench"),))
        init_mysql_schema(settings)
        store = build_mysql_store(settings, EmbeddedSettings(), Stats())
        await measure_saves("mariadb, every commit", store, server.pid, options)


async def measure_saves(name: str, store: MessageStore, pid: int, options: argparse.Namespace) -> None:
    """Open a store, and keep a number of saves in flight, each on a key of its own."""
    keys = [Key(f"user:{number:08d}") for number in range(options.keys)]
    await store.start()
    try:
        # The keys are there, and the code has run, before the measuring begins.
        await save_many(store, keys, options.keys, options.in_flight, "warm")
        await tell(
            name, pid, options.saves, lambda: save_many(store, keys, options.saves, options.in_flight, "run")
        )
    finally:
        await store.stop()


async def add_bare(client: redis.asyncio.Redis, options: argparse.Namespace) -> None:
    """Insert without any promise."""
    for start in range(0, options.saves, options.in_flight):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, start + options.in_flight):
            pipeline.zadd(
                f"user:{number % options.keys:08d}", {b'{"msg":%b,"expire":%d}' % (PAYLOAD, number): number}
            )
        await pipeline.execute()


async def tell(name: str, pid: int, saves: int, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something and print what it cost, for us and for the server."""
    ours, theirs, wall = time.process_time(), cpu_s(pid), time.perf_counter()
    await run()
    wall = time.perf_counter() - wall
    ours, theirs = time.process_time() - ours, cpu_s(pid) - theirs
    print(f"{name:24} {ours / saves * 1e6:8.1f} {theirs / saves * 1e6:8.1f} {saves / wall:27,.0f}")


if __name__ == "__main__":
    main()
