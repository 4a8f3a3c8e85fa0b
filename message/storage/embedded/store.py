"""The embedded store: one SQLite file, written by one thread, durable before it answers.

This file is the side of the event loop: queues, futures, counters.

    store.py → writer.py (its thread) → save.py → keys.py (what is known of each key)
                                      → changes.py (all that is no save)
             → reads.py (threads) → pages.py
             → clock.py · durability.py (what the store promises)
    on disk:   file.py → directory.py, schema.py, wal.py; backup.py copies it while it is in use
    rows.py is under all that read or write many rows at a time;
    damage.py under save.py and pages.py: the checksums of messages
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time as clocks
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cluster.contracts.message import Guarantee, Page, SaveBatch, SaveReply, Stored
from cluster.errors import DeadlinePassedError, EnckeError
from cluster.model import Key, Mid, StoreServer
from cluster.stats import Stats
from message.storage.checks import require_device, require_incarnation, require_key
from message.storage.clock import to_whole_s
from message.storage.counters import StoreCounters, show_state
from message.storage.embedded import changes, reads
from message.storage.embedded.clock import EmbeddedClock
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.damage import DamageReport
from message.storage.embedded.durability import guarantee
from message.storage.embedded.file import (
    FILE_NAME,
    DirectoryLock,
    connect_reader,
    open_database,
    told_to_operator,
)
from message.storage.embedded.pages import Load
from message.storage.embedded.save import Saver
from message.storage.embedded.writer import Change, Work, Writer, Written
from message.storage.expiry import Expiry
from message.storage.outage import Outage
from message.storage.waiting import Waiting

T = TypeVar("T")

# How long a thread that wants to run lets a busy one go on. At the interpreter's default, 5 ms,
# a writer beside a busy event loop waits seconds, because each poll of the loop starts the
# time anew; at this one, tens of milliseconds (bench/store.py --busy 0.9).
SWITCH_INTERVAL_S = 0.0005


class EmbeddedStore:
    """MessageStore on one SQLite file. Belongs to the event loop that starts it."""

    def __init__(
        self,
        settings: EmbeddedSettings,
        stats: Stats,
        *,
        wall_ns: Callable[[], int] = clocks.time_ns,
        monotonic_ns: Callable[[], int] = clocks.monotonic_ns,
    ) -> None:
        """Make a store that is not open yet; start() opens it.

        Args:
            stats: where it counts.
            wall_ns, monotonic_ns: clocks, called from several threads.
        """
        self._settings = settings
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._directory = Path(settings.data_dir)
        self._counters = StoreCounters(stats)
        self._damage = DamageReport(self._counters)
        self._waiting = Waiting(settings)
        self._outage = Outage()
        show_state(stats, lambda: self._waiting.writes, self.describe)
        # What was asked for in this turn of the loop: one wake-up of the writer for all.
        self._turn: list[Work] = []
        saved = self._counters.saved
        self._expiry = Expiry(
            self.remove_expired, settings.expiry_interval_s, settings.expiry_batch, lambda: saved.value
        )

    async def start(self) -> None:
        """Lock the directory, make or check the file, start the threads; see MessageStore.start()."""
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[str] = self._loop.create_future()
        self._lock = DirectoryLock(self._directory)
        try:
            opened = await asyncio.to_thread(self._open)
        except BaseException:
            self._lock.release()
            raise
        self._time = opened.time
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._writer = Writer(opened.writing, self._settings, opened.saver, self._outage, self._report)
        self._readers = reads.Readers(opened.reading, opened.time, self._waiting.end_reads)
        self._waiting.is_open = True
        self._expiry.start()

    async def stop(self) -> None:
        """Finish what was asked for, refuse the rest, close; see MessageStore.stop()."""
        if not self._waiting.is_open:
            return
        self._waiting.is_open = False
        await self._expiry.stop()
        self._keep_clock()
        self._flush()
        self._readers.flush()
        await asyncio.to_thread(self._close)

    def describe(self) -> list[Guarantee]:
        """What this store promises, and whether its disk refuses writes."""
        return [self._outage.mark(guarantee(str(self._directory.absolute()), self._settings.durability))]

    def start_fault(self) -> str | None:
        """None: see MessageStore.start_fault(). start() has opened the file, or failed."""
        return None

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """Store a batch; see MessageService.save()."""
        future: asyncio.Future[SaveReply] = self._loop.create_future()
        payload_bytes = 0
        for item in batch.items:
            payload_bytes += len(item.payload)
        refusal = self._waiting.admit_save(batch, payload_bytes)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        self._put(Work(future, clocks.monotonic(), batch=batch, payload_bytes=payload_bytes))
        return future

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """Read a page; see MessageService.load_after()."""
        self._admit_read(key)
        page, damaged = await self._readers.load(Load(key, after, max_messages, max_bytes))
        self._damage.add(key, damaged)
        return page

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """Remember a device's mid; see MessageService.acknowledge()."""
        require_device(device)
        now_s, max_devices = self._time.wall_s(), self._settings.max_devices_per_key
        await self._change(
            key, lambda c: changes.acknowledge(c, key, device, mid, now_s, max_devices), leaves_keys=True
        )

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """A device's acknowledged mid; see MessageService.acknowledged()."""
        require_device(device)
        return await self._read(key, lambda c: reads.acknowledged(c, key, device))

    async def delete_key(self, key: Key) -> int:
        """Delete what is stored for a key; see MessageService.delete_key()."""
        return await self._change(key, lambda c: changes.delete_key(c, key, *self._now()))

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """Delete one message; see MessageService.delete_message()."""
        return await self._change(key, lambda c: changes.delete_message(c, key, mid, *self._now()))

    async def inspect(self, key: Key) -> Stored:
        """Count what is stored for a key; see MessageService.inspect()."""
        return await self._read(key, lambda c: reads.inspect(c, self._time, key))

    async def clock(self) -> Mid:
        """The store's clock; see MessageService.clock()."""
        return self._time.mid()

    async def clocks(self) -> list[StoreServer]:
        """The only server's; see MessageService.clocks()."""
        return [StoreServer("", 1, self._time.mid())]

    async def fence(self, incarnation: str) -> None:
        """Refuse an incarnation's saves; see MessageStore.fence()."""
        require_incarnation(incarnation)
        await self._change(None, lambda c: changes.fence(c, incarnation, self._now()[1]), leaves_keys=True)

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether an incarnation is fenced; see MessageStore.is_fenced()."""
        require_incarnation(incarnation)
        return await self._read(None, lambda c: reads.is_fenced(c, incarnation, self._now()[1]))

    async def remove_expired(self, limit: int) -> int:
        """Free what has expired; see MessageStore.remove_expired(). Happens by itself, too."""
        messages, rows = await self._change(None, lambda c: self._remove(c, limit), is_background=True)
        self._counters.expired.value += messages
        return rows

    def _remove(self, connection: sqlite3.Connection, limit: int) -> tuple[int, int]:
        clock = self._time.mid()
        if to_whole_s(clock) > self._time.wall_s():
            # The wall clock was set back. After a crash now, mids that nobody has stored would come again.
            changes.keep_clock(connection, clock)
        return changes.remove_expired(connection, *self._now(), self._settings.device_memory_days, limit)

    def _keep_clock(self) -> None:
        """The last change before the end: mids that were told, and not stored, must not come again."""
        kept: asyncio.Future[None] = self._loop.create_future()
        # Nobody waits for it, and it may fail.
        kept.add_done_callback(lambda done: done.exception())
        self._waiting.add_last_change()
        change = partial(changes.keep_clock, clock=self._time.mid())
        self._put(Work(kept, clocks.monotonic(), change=change, leaves_keys=True))

    def _open(self) -> _Opened:
        path = self._directory / FILE_NAME
        with told_to_operator(path), ExitStack() as on_failure:
            writing = open_database(self._directory, self._settings)
            on_failure.callback(writing.close)
            changes.prepare(writing)
            # Not only above what was forgotten: comet nodes mint above the store's clock alone, and a
            # machine whose clock is behind must not make them go back. Reads all keys, once.
            (floor,) = writing.execute(
                "SELECT max(floor, ifnull((SELECT max(last) FROM keys), 0)) FROM store"
            ).fetchone()
            time = EmbeddedClock(self._wall_ns, self._monotonic_ns, Mid(floor))
            saver = Saver(writing, self._settings, time)
            reading = []
            for _ in range(self._settings.reader_threads):
                reading.append(connect_reader(path))
                on_failure.callback(reading[-1].close)
            on_failure.pop_all()
            return _Opened(writing, reading, time, saver)

    def _close(self) -> None:
        # The writer last: closing the last connection copies the log into the database
        # and removes it, which is how the next start sees that this was orderly.
        self._readers.join()
        self._writer.join()
        self._lock.release()

    def _now(self) -> tuple[int, int]:
        return self._time.wall_s(), to_whole_s(self._time.mid())

    def _read(self, key: Key | None, query: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        self._admit_read(key)
        return self._readers.read(query)

    def _admit_read(self, key: Key | None) -> None:
        if key is not None:
            require_key(key)
        self._waiting.admit_read()

    def _change(
        self,
        key: Key | None,
        change: Callable[[sqlite3.Connection], T],
        *,
        leaves_keys: bool = False,
        is_background: bool = False,
    ) -> asyncio.Future[T]:
        if key is not None:
            require_key(key)
        self._waiting.admit_change()
        future: asyncio.Future[T] = self._loop.create_future()
        write: Change = change
        started = clocks.monotonic()
        self._put(Work(future, started, change=write, leaves_keys=leaves_keys, is_background=is_background))
        return future

    def _put(self, work: Work) -> None:
        if not self._turn:
            self._loop.call_soon(self._flush)
        self._turn.append(work)

    def _flush(self) -> None:
        if self._turn:
            self._writer.put(self._turn)
            self._turn = []

    def _report(self, written: Written) -> None:
        """Hand a transaction's answers to the loop, with one wake-up. In the writer's thread."""
        self._loop.call_soon_threadsafe(partial(self._deliver, written))

    def _deliver(self, written: Written) -> None:
        now = clocks.monotonic()
        counters = self._counters
        payload_bytes = 0
        for work, answer in written.answers:
            payload_bytes += work.payload_bytes
            if work.batch is not None:
                counters.save_seconds.observe(now - work.started)
            if work.future.done():
                continue
            if isinstance(answer, EnckeError):
                if work.batch is not None and not isinstance(answer, DeadlinePassedError):
                    counters.failed.value += len(work.batch.items)
                work.future.set_exception(answer)
            else:
                work.future.set_result(answer)
        self._waiting.end_writes(len(written.answers), payload_bytes)
        counters.commit_seconds.observe(written.took_s)
        counters.add(written.tally)
        if written.fault is not None and not self.failed.done():
            self.failed.set_result(written.fault)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What start() makes in a thread, because it reads the disk."""

    writing: sqlite3.Connection
    reading: list[sqlite3.Connection]
    time: EmbeddedClock
    saver: Saver
