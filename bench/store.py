"""What a durable save costs, and why the embedded store is built as it is.

    python -m bench.store                      the store itself: 64 saves in flight
    python -m bench.store --ids                each save with an id to be remembered, as in a cluster
    python -m bench.store --keys 20000         every save another key, the expensive case
    python -m bench.store --busy 0.9           with an event loop that is 90 % busy with other work
    python -m bench.store --reads              pages read while nothing else happens
    python -m bench.store --alternatives       bare SQL: a call per row against rows in one call

CPU is that of the whole process, all threads, per save: user and system. On a
shared machine compare ratios within one run; take the best of several.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.saves import EXPIRE_S, PAYLOAD, save_many
from cluster.contracts.message import SaveBatch, SaveItem
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.stats import Stats
from encke.commands.arguments import Parser
from message.storage.counters import StoreCounters
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.rows import ManyRows
from message.storage.embedded.store import EmbeddedStore


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--saves", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--ids", action="store_true")
    parser.add_argument("--durability", choices=("fsync", "os"), default="fsync")
    parser.add_argument("--busy", type=float, default=0.0, help="share of time that the loop is busy")
    parser.add_argument("--dir", type=Path, help="where; the default is the system's temporary directory")
    parser.add_argument("--reads", action="store_true")
    parser.add_argument("--alternatives", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="encke-bench-", dir=options.dir))
    try:
        if options.alternatives:
            compare_statements(directory, options.saves)
        else:
            uvloop.run(measure(directory, options))
    finally:
        shutil.rmtree(directory)


async def measure(directory: Path, options: argparse.Namespace) -> None:
    """Open a store and measure saves or reads."""
    settings = replace(EmbeddedSettings(), data_dir=str(directory / "data"), durability=options.durability)
    stats = Stats()
    store = EmbeddedStore(settings, stats)
    await store.start()
    try:
        if options.reads:
            await measure_reads(store, options.saves // 10)
        else:
            await measure_saves(store, options)
            for family in stats.snapshot():
                if family.name == "store_commit_seconds":
                    commits = sum(family.readings[""].counts)  # type: ignore[union-attr]
                    print(f"commits       {commits}, {options.saves / commits:.0f} saves each")
            seconds = StoreCounters(stats).save_seconds
            print(f"save seconds  p50 <= {seconds.quantile(0.5)}, p99 <= {seconds.quantile(0.99)}")
    finally:
        await store.stop()


async def measure_saves(store: EmbeddedStore, options: argparse.Namespace) -> None:
    """Keep a number of saves in flight, each on a key of its own."""
    names = [Key(f"user:{number:08d}") for number in range(options.keys)]
    random.Random(1).shuffle(names)
    busy = asyncio.create_task(keep_busy(options.busy)) if options.busy else None
    cpu, wall = time.process_time(), time.perf_counter()
    await save_many(store, names, options.saves, options.in_flight, has_ids=options.ids)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if busy is not None:
        busy.cancel()
    print(
        f"saves         {options.saves} on {options.keys} keys, {options.in_flight} in flight,"
        f" {options.durability}"
    )
    print(f"CPU per save  {cpu / options.saves * 1e6:.1f} us")
    print(f"per second    {options.saves / wall:,.0f}")


async def keep_busy(share: float) -> None:
    """Use the loop in slices of a millisecond."""
    while True:
        end = time.perf_counter() + share / 1000
        while time.perf_counter() < end:
            pass
        await asyncio.sleep((1 - share) / 1000)


async def measure_reads(store: EmbeddedStore, reads: int) -> None:
    """Read pages of ten messages, one after the other and 64 at a time."""
    deadline = Mid(await store.clock() + 600 * TICKS_PER_SECOND)
    names = [Key(f"user:{number}") for number in range(1000)]
    for name in names:
        items = [SaveItem(f"{name}-{number}", PAYLOAD, EXPIRE_S) for number in range(10)]
        await store.save(SaveBatch(name, items, Mid(0), deadline))
    for width in (1, 64):
        cpu, wall = time.process_time(), time.perf_counter()
        for number in range(0, reads - reads % width, width):
            chosen = [names[(number + place) % len(names)] for place in range(width)]
            await asyncio.gather(*(store.load_after(name, Mid(0), 100, 1_000_000) for name in chosen))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(
            f"{width:3} at a time  CPU per page {cpu / reads * 1e6:.1f} us,"
            f" {wall / reads * 1e6:.1f} us of time"
        )


def compare_statements(directory: Path, rows: int) -> None:
    """Insert the rows of a group of 64 in several ways."""
    plain = "INSERT {how} INTO messages (key_id, mid, payload) VALUES (?, ?, ?)"
    many = (
        "INSERT {how} INTO messages (key_id, mid, payload) SELECT * FROM (VALUES {rows}) WHERE column1 >= 0"
    )
    # Other than as bytes, sqlite3 takes a payload without looking for an adapter.
    payload = bytearray(PAYLOAD)
    for name, is_clustered, how, sql, content in (
        ("a call per row", False, "", plain, payload),
        ("rows in one call, with a statement journal", False, "", many, payload),
        ("rows in one call, OR FAIL, payloads as bytes", False, "OR FAIL", many, PAYLOAD),
        ("rows in one call, OR FAIL", False, "OR FAIL", many, payload),
        ("rows in one call, OR FAIL, clustered key", True, "OR FAIL", many, payload),
    ):
        connection = sqlite3.connect(directory / f"{name}.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if is_clustered:
            connection.execute(
                "CREATE TABLE messages (key_id INT, mid INT, payload BLOB, PRIMARY KEY (key_id, mid))"
                " WITHOUT ROWID"
            )
        else:
            connection.execute(
                "CREATE TABLE messages (id INTEGER PRIMARY KEY, key_id INT, mid INT, payload BLOB)"
            )
            connection.execute("CREATE UNIQUE INDEX messages_by_key ON messages (key_id, mid)")
        statement = sql.replace("{how}", how)
        together = ManyRows(statement, width=3)
        cpu = time.process_time()
        for mid in range(rows // 64):
            group = [(key, mid, content) for key in range(64)]
            connection.execute("BEGIN")
            if sql is plain:
                connection.executemany(statement, group)
            else:
                together.execute(connection, [value for row in group for value in row])
            connection.execute("COMMIT")
        print(f"{name:45} {(time.process_time() - cpu) / rows * 1e6:5.1f} us")
        connection.close()


if __name__ == "__main__":
    main()
