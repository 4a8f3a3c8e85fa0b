"""The MySQL store: one MySQL or MariaDB server. Several of them are put together by sharded.py.

    mysql.py → mysql_worker.py (threads, transactions) → mysql_save.py, mysql_changes.py, mysql_reads.py
             → mysql_connection.py (the driver) · mysql_schema.py (tables) · mysql_durability.py

The driver blocks, so connections live in threads. A key always has the same
writing thread: its saves and changes keep their order.
"""

from __future__ import annotations

import asyncio
import logging
import time as clocks
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar
from zlib import crc32

import pymysql

from cluster.contracts.message import Guarantee, Page, SaveBatch, SaveReply, Stored
from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from cluster.model import Key, Mid, StoreServer, key_fault
from message.config import MysqlSettings, StoreLimits
from message.expiry import Expiry
from message.storage import mysql_changes as changes
from message.storage import mysql_reads as reads
from message.storage.checks import device_fault, incarnation_fault, save_refusal
from message.storage.clock import HeardClock
from message.storage.counters import StoreCounters, Tally
from message.storage.guarantees import Promise
from message.storage.mysql_connection import Connection, connect_options, explain
from message.storage.mysql_durability import guarantee, read_settings
from message.storage.mysql_keys import keep_clock
from message.storage.mysql_schema import check_version, schema_version
from message.storage.mysql_worker import Done, Work, Worker
from message.storage.servers import ServerUrl

_log = logging.getLogger(__name__)

T = TypeVar("T")


class MysqlStore:
    """MessageStore on one MySQL server. Belongs to the event loop that starts it."""

    def __init__(
        self,
        server: ServerUrl,
        settings: MysqlSettings,
        limits: StoreLimits,
        counters: StoreCounters,
        *,
        monotonic_ns: Callable[[], int] = clocks.monotonic_ns,
    ) -> None:
        """Make a store that is not open yet; start() opens it.

        Raises:
            ConfigError: the server's address is wrong.
        """
        connect_options(server)
        self._server = server
        self._settings = settings
        self._limits = limits
        self._counters = counters
        self._heard = HeardClock(monotonic_ns)
        self._promise = Promise(guarantee(server.name, None))
        # Why the last attempt to connect has failed. Set by the workers' threads.
        self._away_reason = "no answer yet"
        self._is_open = False
        # Asked for and not answered yet.
        self.queued = 0
        self._queued_bytes = 0
        self._queued_reads = 0
        # What was asked for in this turn of the loop: one wake-up per thread for all.
        self._turn: dict[Worker, list[Work]] = defaultdict(list)
        self._expiry = Expiry(self.remove_expired, limits.expiry_interval_s, limits.expiry_batch)

    async def start(self) -> None:
        """Connect, check the tables, read what the server promises; see MessageStore.start().

        A server that is away does not keep the others from serving their keys:
        that is logged, and tried again with every save.
        """
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[str] = self._loop.create_future()
        await asyncio.to_thread(self._check)
        settings = self._settings
        self._writers = [self._worker(f"writer-{n}") for n in range(settings.writer_threads)]
        self._readers = [self._worker(f"reader-{n}") for n in range(settings.reader_threads)]
        # Of its own, so that what it removes does not delay the saves.
        self._remover = self._worker("remover")
        self._is_open = True
        self._expiry.start()

    async def stop(self) -> None:
        """Finish what was asked for, refuse the rest, close; see MessageStore.stop()."""
        if not self._is_open:
            return
        self._is_open = False
        await self._expiry.stop()
        if heard := self._heard.bound():
            kept: asyncio.Future[int] = self._loop.create_future()
            # Nobody waits for it, and it may fail.
            kept.add_done_callback(lambda done: done.exception())
            self._put(self._remover, Work(kept, change=lambda c: c.execute(keep_clock(heard))))
        self._flush()
        await asyncio.to_thread(self._join)

    def describe(self) -> list[Guarantee]:
        """What the server promised when it was last connected."""
        return [self._promise.current]

    def start_fault(self) -> str | None:
        """See MessageStore.start_fault()."""
        return None if self._promise.is_heard else f"{self._server.name}: {self._away_reason}"

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """Store a batch; see MessageService.save()."""
        future: asyncio.Future[SaveReply] = self._loop.create_future()
        payload_bytes = 0
        for item in batch.items:
            payload_bytes += len(item.payload)
        refusal = self._refusal(batch, payload_bytes)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        self._put(self._writer(batch.key), Work(future, batch=batch, payload_bytes=payload_bytes))
        return future

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """Read a page; see MessageService.load_after()."""
        heard = self._heard
        page, unreadable = await self._read(
            key, lambda c: reads.load_after(c, heard, key, after, max_messages, max_bytes)
        )
        self._heard.hear(page.clock)
        self._counters.unreadable.value += unreadable
        return page

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """Remember a device's mid; see MessageService.acknowledge()."""
        if fault := device_fault(device):
            raise RequestError(fault)
        max_devices = self._limits.max_devices_per_key
        await self._change(key, lambda c: changes.acknowledge(c, key, device, mid, max_devices))

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """A device's acknowledged mid; see MessageService.acknowledged()."""
        return await self._read(key, lambda c: reads.acknowledged(c, key, device))

    async def delete_key(self, key: Key) -> int:
        """Delete what is stored for a key; see MessageService.delete_key()."""
        return await self._change(key, lambda c: changes.delete_key(c, key, self._heard))

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """Delete one message; see MessageService.delete_message()."""
        return await self._change(key, lambda c: changes.delete_message(c, key, mid, self._heard))

    async def inspect(self, key: Key) -> Stored:
        """Count what is stored for a key; see MessageService.inspect()."""
        return await self._read(key, lambda c: reads.inspect(c, key))

    async def clock(self) -> Mid:
        """The server's clock; see MessageService.clock()."""
        clock = await self._read(Key("clock"), lambda c: reads.clock(c, self._heard))
        self._heard.hear(clock)
        return clock

    @property
    def heard_clock(self) -> Mid:
        """See ServerStore.heard_clock."""
        return self._heard.bound()

    async def clocks(self) -> list[StoreServer]:
        """The only server's; see MessageService.clocks()."""
        return [StoreServer("", 1, await self.clock())]

    async def fence(self, incarnation: str) -> None:
        """Refuse an incarnation's saves; see MessageStore.fence()."""
        if fault := incarnation_fault(incarnation):
            raise RequestError(fault)
        await self._ask(self._remover, lambda c: changes.fence(c, incarnation, self._heard))

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether an incarnation is fenced; see MessageStore.is_fenced()."""
        if fault := incarnation_fault(incarnation):
            raise RequestError(fault)
        return await self._read(Key(incarnation), lambda c: reads.is_fenced(c, self._heard, incarnation))

    async def remove_expired(self, limit: int) -> int:
        """Free what has expired; see MessageStore.remove_expired(). Happens by itself, too."""
        days = self._limits.device_memory_days
        messages, rows = await self._ask(
            self._remover, lambda c: changes.remove_expired(c, self._heard, days, limit)
        )
        self._counters.expired.value += messages
        return rows

    def _worker(self, name: str) -> Worker:
        return Worker(
            f"{self._server.name} {name}",
            self._connect,
            self._settings,
            self._limits,
            self._heard,
            self._report,
        )

    def _report(self, done: Done, tally: Tally) -> None:
        """Hand a transaction's answers to the loop, with one wake-up. In a worker's thread."""
        self._loop.call_soon_threadsafe(self._deliver, done, tally)

    def _check(self) -> None:
        """Look at the server before the threads do. In a thread."""
        try:
            self._connect().close()
        except (pymysql.err.Error, OSError) as error:
            _log.warning(
                "the database is away at the start, what it promises is not known: %s: %s",
                self._server.name,
                error,
            )

    def _connect(self) -> Connection:
        """A connection to a database with our tables. In a worker's thread."""
        try:
            connection = Connection(self._server, self._settings)
            try:
                check_version(schema_version(connection))
                promised = guarantee(self._server.name, read_settings(connection))
            except BaseException:
                connection.close()
                raise
        except Exception as error:
            self._away_reason = explain(error)
            raise
        self._promise.hear(promised)
        return connection

    def _join(self) -> None:
        for worker in (*self._writers, *self._readers, self._remover):
            worker.join()

    def _writer(self, key: Key) -> Worker:
        return self._writers[crc32(key.encode()) % len(self._writers)]

    def _refusal(self, batch: SaveBatch, payload_bytes: int) -> EnckeError | None:
        if not self._is_open:
            return UnavailableError("the store is not open")
        return save_refusal(batch, payload_bytes, self._limits, self.queued, self._queued_bytes)

    async def _change(self, key: Key, change: Callable[[Connection], T]) -> T:
        if fault := key_fault(key):
            raise RequestError(fault)
        return await self._ask(self._writer(key), change)

    async def _read(self, key: Key, query: Callable[[Connection], T]) -> T:
        if fault := key_fault(key):
            raise RequestError(fault)
        self._require_open()
        if self._queued_reads >= self._limits.max_queued_reads:
            raise OverloadedError("too many reads wait for the store")
        reader = self._readers[crc32(key.encode()) % len(self._readers)]
        future: asyncio.Future[T] = self._loop.create_future()
        self._queued_reads += 1
        self._put(reader, Work(future, change=query, is_read=True))
        return await future

    def _ask(self, worker: Worker, change: Callable[[Connection], T]) -> asyncio.Future[T]:
        self._require_open()
        if self.queued >= self._limits.max_queued_saves:
            raise OverloadedError("too many changes wait for the store")
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(worker, Work(future, change=change))
        return future

    def _require_open(self) -> None:
        if not self._is_open:
            raise UnavailableError("the store is not open")

    def _put(self, worker: Worker, work: Work) -> None:
        if not work.is_read:
            self.queued += 1
            self._queued_bytes += work.payload_bytes
        if not self._turn:
            self._loop.call_soon(self._flush)
        self._turn[worker].append(work)

    def _flush(self) -> None:
        turn, self._turn = self._turn, defaultdict(list)
        for worker, works in turn.items():
            worker.put(works)

    def _deliver(self, done: Done, tally: Tally) -> None:
        now = clocks.monotonic()
        counters = self._counters
        for work, answer in zip(done.works, done.answers, strict=True):
            if work.is_read:
                self._queued_reads -= 1
            else:
                self.queued -= 1
                self._queued_bytes -= work.payload_bytes
            if work.batch is not None:
                counters.save_seconds.observe(now - work.started)
                if isinstance(answer, SaveReply):
                    self._heard.hear(answer.clock)
                elif not isinstance(answer, DeadlinePassedError):
                    counters.failed.value += len(work.batch.items)
            if work.future.done():
                continue
            if isinstance(answer, EnckeError):
                work.future.set_exception(answer)
            else:
                work.future.set_result(answer)
        counters.commit_seconds.observe(done.took_s)
        counters.add(tally)
