"""The MySQL store: one MySQL or MariaDB server. Several of them are put together by ../sharded.py.

    store.py → workers.py (threads) → worker.py (transactions)
             → save.py, changes.py, reads.py → keys.py (what is known of each key)
             → connection.py (the driver) · schema.py (tables) · durability.py

The driver blocks, so connections live in threads.
"""

from __future__ import annotations

import asyncio
import time as clocks
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cluster.contracts.message import Guarantee, Page, SaveBatch, SaveReply, Stored
from cluster.errors import DeadlinePassedError, EnckeError
from cluster.model import Key, Mid, StoreServer
from message.storage.checks import require_device, require_incarnation, require_key
from message.storage.clock import HeardClock
from message.storage.counters import StoreCounters, Tally
from message.storage.expiry import Expiry
from message.storage.limits import StoreLimits
from message.storage.mysql import changes, reads
from message.storage.mysql.config import MysqlSettings
from message.storage.mysql.connection import Connection, connect_options
from message.storage.mysql.keys import keep_clock
from message.storage.mysql.worker import Done, Work
from message.storage.mysql.workers import Workers
from message.storage.servers import ServerUrl
from message.storage.waiting import Waiting

T = TypeVar("T")

# Expired rows removed in one transaction, 0.2 s: it holds up the saves of their keys, and takes
# more than in proportion when it is larger (10,000: 5 s).
LARGEST_REMOVAL = 2000


class MysqlStore:
    """MessageStore on one MySQL server. Belongs to the event loop that starts it."""

    def __init__(
        self,
        server: ServerUrl,
        settings: MysqlSettings,
        limits: StoreLimits,
        counters: StoreCounters,
    ) -> None:
        """Make a store that is not open yet; start() opens it.

        Raises:
            ConfigError: the server's address is wrong.
        """
        connect_options(server)
        self._server = server
        self._limits = limits
        self._counters = counters
        # Messages saved by this server since the start; the counters are those of all servers.
        self.saved = 0
        self._heard = HeardClock(clocks.monotonic_ns)
        self._waiting = Waiting(limits)
        self._workers = Workers(server, settings, limits, self._heard, self._deliver)
        self._expiry = Expiry(
            self.remove_expired,
            limits.expiry_interval_s,
            limits.expiry_batch,
            lambda: self.saved,
            LARGEST_REMOVAL,
        )

    async def start(self) -> None:
        """Connect, check the tables, read what the server promises; see MessageStore.start().

        A server that is away does not keep the others from serving their keys:
        that is logged, and tried again with every save.
        """
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[str] = self._loop.create_future()
        await self._workers.start()
        self._waiting.is_open = True
        self._expiry.start()

    async def stop(self) -> None:
        """Finish what was asked for, refuse the rest, close; see MessageStore.stop()."""
        if not self._waiting.is_open:
            return
        self._waiting.is_open = False
        await self._expiry.stop()
        if heard := self._heard.bound():
            kept: asyncio.Future[int] = self._loop.create_future()
            # Nobody waits for it, and it may fail.
            kept.add_done_callback(lambda done: done.exception())
            self._waiting.add_last_change()
            self._workers.remove(Work(kept, change=lambda c: c.execute(keep_clock(heard))))
        await self._workers.stop()

    @property
    def queued(self) -> int:
        """See ServerStore.queued."""
        return self._waiting.writes

    def describe(self) -> list[Guarantee]:
        """What the server promised when it was last connected, and whether it is away."""
        return [self._workers.outage.mark(self._workers.promise.current)]

    def start_fault(self) -> str | None:
        """See MessageStore.start_fault()."""
        if self._workers.promise.is_heard:
            return None
        reason = self._workers.outage.reason or "no answer yet"
        return f"{self._server.name}: {reason}"

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
        self._workers.write(batch.key, Work(future, batch=batch, payload_bytes=payload_bytes))
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
        require_device(device)
        max_devices = self._limits.max_devices_per_key
        await self._change(key, lambda c: changes.acknowledge(c, key, device, mid, max_devices))

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """A device's acknowledged mid; see MessageService.acknowledged()."""
        require_device(device)
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
        require_incarnation(incarnation)
        await self._ask(self._workers.remove, lambda c: changes.fence(c, incarnation, self._heard))

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether an incarnation is fenced; see MessageStore.is_fenced()."""
        require_incarnation(incarnation)
        return await self._read(Key(incarnation), lambda c: reads.is_fenced(c, self._heard, incarnation))

    async def remove_expired(self, limit: int) -> int:
        """Free what has expired; see MessageStore.remove_expired(). Happens by itself, too."""
        days = self._limits.device_memory_days
        messages, rows = await self._ask(
            self._workers.remove, lambda c: changes.remove_expired(c, self._heard, days, limit)
        )
        self._counters.expired.value += messages
        return rows

    async def _change(self, key: Key, change: Callable[[Connection], T]) -> T:
        require_key(key)
        return await self._ask(partial(self._workers.write, key), change)

    async def _read(self, key: Key, query: Callable[[Connection], T]) -> T:
        require_key(key)
        self._waiting.admit_read()
        future: asyncio.Future[T] = self._loop.create_future()
        self._workers.read(key, Work(future, change=query, is_read=True))
        return await future

    def _ask(self, put: Callable[[Work], None], change: Callable[[Connection], T]) -> asyncio.Future[T]:
        self._waiting.admit_change()
        future: asyncio.Future[T] = self._loop.create_future()
        put(Work(future, change=change))
        return future

    def _deliver(self, done: Done, tally: Tally) -> None:
        now = clocks.monotonic()
        counters = self._counters
        payload_bytes = 0
        for work, answer in zip(done.works, done.answers, strict=True):
            payload_bytes += work.payload_bytes
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
        # A read is alone; see Worker.
        if done.works[0].is_read:
            self._waiting.end_reads(1)
        else:
            self._waiting.end_writes(len(done.works), payload_bytes)
        counters.commit_seconds.observe(done.took_s)
        counters.add(tally)
        self.saved += tally.saved
