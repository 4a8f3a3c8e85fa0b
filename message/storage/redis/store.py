"""The Redis store: one server. Several of them are put together by ../sharded.py.

    store.py → scripts.py, lua.py (what happens in the server)
             → requests.py (a save as the server is asked) · replies.py (what it answers)
             → reads.py (what is read of a key) → members.py (messages as stored)
             → link.py (connections) → driver.py · durability.py (what the server promises)

Whatever changes a key goes over one connection, in its order; reads have
another, so that a large page does not hold up the saves behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time as clocks
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection

from cluster.contracts.message import Guarantee, Page, SaveBatch, SaveReply, Stored
from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    StorageError,
    UnavailableError,
)
from cluster.model import Key, Mid, StoreServer
from message.storage.checks import require_device, require_incarnation, require_key
from message.storage.clock import HeardClock
from message.storage.counters import StoreCounters
from message.storage.expiry import Expiry
from message.storage.guarantees import Promise
from message.storage.limits import StoreLimits
from message.storage.outage import Outage, Refusals
from message.storage.redis.config import RedisSettings
from message.storage.redis.durability import guarantee, read_settings
from message.storage.redis.link import RedisLink
from message.storage.redis.reads import Reads
from message.storage.redis.replies import read_save_reply, read_single_saved
from message.storage.redis.requests import pack_save
from message.storage.redis.scripts import Scripts
from message.storage.servers import ServerUrl
from message.storage.waiting import Waiting

log = logging.getLogger(__name__)


class RedisStore:
    """MessageStore on one Redis server. Belongs to the event loop that starts it."""

    def __init__(
        self,
        server: ServerUrl,
        settings: RedisSettings,
        limits: StoreLimits,
        counters: StoreCounters,
    ) -> None:
        """Make a store that is not open yet; start() opens it."""
        self._server = server
        self._limits = limits
        self._counters = counters
        # Messages saved by this server since the start; the counters are those of all servers.
        self.saved = 0
        self._scripts = Scripts(limits)
        self._heard = HeardClock(clocks.monotonic_ns)
        self._promise = Promise(guarantee(server.name, None))
        self._waiting = Waiting(limits)
        self._outage = Outage()
        self._refusals = Refusals("redis", server.name)
        link = partial(
            RedisLink,
            server.url,
            server.name,
            settings,
            self._scripts.all(),
            self._look_at_settings,
            self._on_refusal,
            self._outage,
        )
        self._writing, self._reading = link(), link()
        self._reads = Reads(self._reading, self._scripts, limits, counters, self._heard, self._waiting)
        self._expiry = Expiry(
            self.remove_expired, limits.expiry_interval_s, limits.expiry_batch, lambda: self.saved
        )

    async def start(self) -> None:
        """Connect, and read what the server promises; see MessageStore.start().

        A server that is away does not keep the others from serving their keys:
        that is logged, and tried again with every save.
        """
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[str] = self._loop.create_future()
        self._writing.start()
        self._reading.start()
        self._waiting.is_open = True
        try:
            await self.clock()
            await self._tell(self._writing.call(self._scripts.clock, b"0", self._bound()))
        except (UnavailableError, StorageError):
            log.warning(
                "redis is away at the start, what it promises is not known: server=%s", self._server.name
            )
        self._expiry.start()

    async def stop(self) -> None:
        """Finish what was asked for, refuse the rest, close; see MessageStore.stop()."""
        if not self._waiting.is_open:
            return
        self._waiting.is_open = False
        await self._expiry.stop()
        with contextlib.suppress(UnavailableError, StorageError):
            await self._writing.call(self._scripts.clock, b"0", self._bound(), b"keep")
        await asyncio.gather(self._writing.stop(), self._reading.stop())

    @property
    def queued(self) -> int:
        """See ServerStore.queued."""
        return self._waiting.writes

    def describe(self) -> list[Guarantee]:
        """What the server promised when it was last connected, and whether it is away."""
        return [self._outage.mark(self._promise.current)]

    def start_fault(self) -> str | None:
        """See MessageStore.start_fault()."""
        if self._promise.is_heard:
            return None
        reason = self._outage.reason or "no answer yet"
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
        count, packed = pack_save(batch, b"%d" % self._heard.bound())
        on_answer = partial(self._on_saved, batch, payload_bytes, future, clocks.monotonic())
        self._writing.send(self._scripts.save, count, packed, on_answer)
        return future

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """Read a page; see MessageService.load_after()."""
        return await self._reads.load_after(key, after, max_messages, max_bytes)

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """Remember a device's mid; see MessageService.acknowledge()."""
        require_device(device)
        limits = self._limits
        await self._change(
            self._scripts.acknowledge,
            key,
            device.encode(),
            b"%d" % mid,
            b"%d" % limits.max_devices_per_key,
            b"%d" % limits.device_memory_days,
        )

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """A device's acknowledged mid; see MessageService.acknowledged()."""
        require_device(device)
        return await self._reads.acknowledged(key, device)

    async def delete_key(self, key: Key) -> int:
        """Delete what is stored for a key; see MessageService.delete_key()."""
        return int(await self._change(self._scripts.delete_key, key))

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """Delete one message; see MessageService.delete_message()."""
        return bool(await self._change(self._scripts.delete_message, key, b"%d" % mid))

    async def inspect(self, key: Key) -> Stored:
        """Count what is stored for a key; see MessageService.inspect()."""
        return await self._reads.inspect(key)

    async def clock(self) -> Mid:
        """The server's clock; see MessageService.clock()."""
        self._waiting.require_open()
        return await self._tell(self._reading.call(self._scripts.clock, b"0", self._bound()))

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
        self._waiting.require_open()
        await self._writing.call(self._scripts.fence, b"0", self._bound(), incarnation.encode())

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether an incarnation is fenced; see MessageStore.is_fenced()."""
        require_incarnation(incarnation)
        self._waiting.require_open()
        return bool(
            await self._reading.call(self._scripts.is_fenced, b"0", self._bound(), incarnation.encode())
        )

    async def remove_expired(self, limit: int) -> int:
        """Free what has expired; see MessageStore.remove_expired(). Happens by itself, too.

        Only messages: the server itself drops the rest.
        """
        self._waiting.require_open()
        clock, rows, messages = await self._writing.call(
            self._scripts.remove_expired, b"0", self._bound(), b"%d" % limit
        )
        self._heard.hear(int(clock))
        self._counters.expired.value += messages
        return int(rows)

    def _on_saved(
        self,
        batch: SaveBatch,
        payload_bytes: int,
        future: asyncio.Future[SaveReply],
        started: float,
        said: bytes | EnckeError,
    ) -> None:
        self._waiting.end_writes(1, payload_bytes)
        self._counters.save_seconds.observe(clocks.monotonic() - started)
        answer = said if isinstance(said, EnckeError) else self._read_answer(said, batch)
        if isinstance(answer, SaveReply):
            if not future.done():
                future.set_result(answer)
            return
        if not isinstance(answer, DeadlinePassedError):
            self._counters.failed.value += len(batch.items)
        if not future.done():
            future.set_exception(answer)

    def _read_answer(self, said: bytes, batch: SaveBatch) -> SaveReply | EnckeError:
        try:
            single = read_single_saved(said)
            if single is not None:
                self._heard.hear(single.clock)
                self._counters.saved.value += 1
                self.saved += 1
                return single
            clock, answer, tally = read_save_reply(said, batch, self._limits)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            # Not from our script. What the server did nobody knows.
            return InDoubtError("redis gave a save an answer that is none")
        self._heard.hear(clock)
        self._counters.add(tally)
        self.saved += tally.saved
        return answer

    async def _change(self, script: Any, key: Key, *arguments: bytes) -> Any:
        require_key(key)
        self._waiting.admit_change()
        try:
            return await self._writing.call(script, b"1", key.encode(), self._bound(), *arguments)
        finally:
            self._waiting.end_writes(1)

    async def _tell(self, call: asyncio.Future[bytes]) -> Mid:
        clock = Mid(int(await call))
        self._heard.hear(clock)
        return clock

    def _bound(self) -> bytes:
        return b"%d" % self._heard.bound()

    def _on_refusal(self, words: str) -> None:
        self._refusals.tell(words)
        if "READONLY" in words:
            # It is a replica now, and another server perhaps what it was.
            self._writing.renew()
            self._reading.renew()

    async def _look_at_settings(self, connection: AbstractConnection) -> None:
        """Learn on every new connection what the server promises: it may be another one now."""
        self._promise.hear(guarantee(self._server.name, await read_settings(connection)))
