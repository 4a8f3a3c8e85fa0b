"""Resume: stored messages first, then live ones, without a gap or a repeat (docs/subscriber-protocol.md).

While a connection catches up, live messages of its key are held. Stored pages
are read above the last mid that was sent, merged with the held ones by mid and
written as the socket takes them. The step from the last page to live happens
without an await, so that nothing can come between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from cluster.contracts.message import MessageService, Page
from cluster.errors import EnckeError
from cluster.model import Key, Message, Mid
from cluster.storeclocks import StoreClocks
from comet.codec.protocol import CloseReason, gap_document, message_document
from comet.config import CometConfig
from comet.metrics import CometMetrics
from comet.subscribers.connection import Connection
from comet.subscribers.outgoing import Outgoing
from comet.subscribers.reading import read_patiently

log = logging.getLogger(__name__)

# What a held message costs beside its payload: small ones must count, too.
HELD_OVERHEAD_BYTES = 256


class CatchUp:
    """Live messages held for one connection while it catches up."""

    __slots__ = ("_held", "_held_bytes", "_limit_bytes", "_metrics", "has_overflowed", "joined_at")

    def __init__(self, limit_bytes: int, metrics: CometMetrics, joined_at: Mid) -> None:
        # The channel's cursor when the connection joined it. What is above comes by here, too: it is
        # counted as delivered when the channel delivers it, whether it is new to the connection then or
        # was read before.
        self.joined_at = joined_at
        # In mid order, because deliveries of a key are.
        self._held: deque[Outgoing] = deque()
        self._held_bytes = 0
        self._limit_bytes = limit_bytes
        self._metrics = metrics
        # Held messages were dropped since the last read of the store began:
        # the connection cannot go live on that read.
        self.has_overflowed = False

    def hold(self, message: Outgoing) -> bool:
        """Keep a live message for later. True: it counts as accepted.

        Over the limit everything held is dropped: what is stored is read again,
        what is not stored is lost to this connection and counted.
        """
        size = len(message.payload) + HELD_OVERHEAD_BYTES
        if self._held and self._held_bytes + size > self._limit_bytes:
            self.drop_all("catch_up_overflow")
            self.has_overflowed = True
        self._held.append(message)
        self._held_bytes += size
        return True

    def drop_all(self, reason: str) -> None:
        """Forget what is held, counting the messages that no store has."""
        lost = sum(not message.is_stored for message in self._held)
        if lost:
            self._metrics.drops.inc(reason, lost)
        self._held.clear()
        self._held_bytes = 0

    def merge(self, page: Page, seen: Mid) -> list[Message]:
        """The page and what is held up to its end, in mid order, without repeats.

        From the last page on everything that is held comes along.

        Args:
            seen: the subscriber has everything up to here. A message that came
                to it another way may be delivered late, and be held here.
        """
        self._take_up_to(seen)
        merged: list[Message] = []
        for stored in page.messages:
            held = self._take_up_to(stored.mid)
            if held and held[-1].mid == stored.mid:
                held.pop()
            merged += held
            merged.append(stored)
        if not page.has_more and not self.has_overflowed:
            merged += self._take_up_to(None)
        return merged

    def _take_up_to(self, mid: Mid | None) -> list[Message]:
        taken: list[Message] = []
        held = self._held
        while held and (mid is None or held[0].mid <= mid):
            message = held.popleft()
            self._held_bytes -= len(message.payload) + HELD_OVERHEAD_BYTES
            taken.append(Message(message.mid, message.payload))
        return taken


class Resumer:
    """Brings resuming connections up to date, a bounded number of store reads at a time.

    Owns a task for each connection that catches up; stop() ends them.
    """

    def __init__(
        self, messages: MessageService, clocks: StoreClocks, config: CometConfig, metrics: CometMetrics
    ) -> None:
        self._messages = messages
        self._clocks = clocks
        self._config = config
        self._metrics = metrics
        # Keeps a storm of reconnects from starving pushes of the store.
        self._loads = asyncio.Semaphore(config.max_resume_loads)
        self._tasks: dict[Connection, asyncio.Task[None]] = {}

    @property
    def active_count(self) -> int:
        """Connections that catch up at the moment."""
        return len(self._tasks)

    def start(self, connection: Connection, key: Key, find_start: Callable[[], Awaitable[Mid]]) -> None:
        """Begin; live messages are held from this call on.

        Args:
            find_start: gives the mid to resume from, when it is this connection's turn.
        """
        self._metrics.resumes.inc()
        channel = connection.channel
        assert channel is not None
        connection.catch_up = CatchUp(self._config.resume_hold_bytes, self._metrics, channel.cursor)
        task = asyncio.create_task(self._guard(connection, connection.catch_up, key, find_start))
        self._tasks[connection] = task
        task.add_done_callback(lambda _: self._tasks.pop(connection))

    def cancel(self, connection: Connection) -> None:
        """The connection has ended: do not wait for a turn to load for nobody."""
        task = self._tasks.get(connection)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def stop(self) -> None:
        """End all catching up, and with it the connections: none may go live with a hole."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guard(
        self, connection: Connection, catch_up: CatchUp, key: Key, find_start: Callable[[], Awaitable[Mid]]
    ) -> None:
        """Close rather than leave a hole: the subscriber can resume."""
        try:
            await self._run(connection, catch_up, key, find_start)
        except asyncio.CancelledError:
            connection.close(CloseReason.DRAINING)
            raise
        except (EnckeError, TimeoutError) as error:
            log.warning("resume failed, connection closed: key=%s reason=%r", key, error)
            connection.close(CloseReason.INTERNAL)
        except Exception:
            log.exception("resume failed, connection closed: key=%s", key)
            connection.close(CloseReason.INTERNAL)
        finally:
            connection.catch_up = None
            catch_up.drop_all("closed_while_catching_up")

    async def _run(
        self, connection: Connection, catch_up: CatchUp, key: Key, find_start: Callable[[], Awaitable[Mid]]
    ) -> None:
        config = self._config
        position: Mid | None = None

        async def read() -> tuple[Mid, Page, int]:
            # A try that failed may have dropped what the next one reads.
            catch_up.has_overflowed = False
            start = await find_start() if position is None else position
            asked_at_ns = time.monotonic_ns()
            limits = config.resume_page_messages, config.resume_page_bytes
            return start, await self._messages.load_after(key, start, *limits), asked_at_ns

        while not connection.has_ended():
            start, page, asked_at_ns = await read_patiently(read, config.store_timeout_s, self._loads)
            # What is minted from now on stands above all that was read.
            self._clocks.hear(key, page.clock, asked_at_ns)
            if connection.has_ended():
                return
            # From here to the end of the step nothing awaits.
            if connection.sent_mid == 0:
                # A subscriber that claims a mid of the future must not miss what comes before it.
                connection.sent_mid = connection.resumed_mid = min(start, page.clock)
            merged = catch_up.merge(page, connection.sent_mid)
            if self._write(connection, page, merged, start):
                self._metrics.deliveries.inc(
                    sum(message.mid <= catch_up.joined_at for message in page.messages)
                )
            position = max(start, merged[-1].mid) if merged else start
            if not page.has_more and not catch_up.has_overflowed:
                connection.catch_up = None
                return
            await self._wait_room(connection)

    def _write(self, connection: Connection, page: Page, merged: list[Message], position: Mid) -> bool:
        wire = connection.wire
        frames: list[bytes] = []
        if page.trimmed > position:
            self._metrics.gaps.inc()
            before = page.messages[0].mid if page.messages else None
            frames.append(wire.frame(gap_document(position, before)))
        frames += [wire.frame(message_document(m.mid, m.payload, wire.version)) for m in merged]
        if frames and not connection.write(b"".join(frames)):
            return False
        if merged:
            connection.sent_mid = max(connection.sent_mid, merged[-1].mid)
        return True

    async def _wait_room(self, connection: Connection) -> None:
        """Wait until the socket has taken what was written; a reader that makes no progress is slow."""
        loop = asyncio.get_running_loop()
        unread = connection.unread_bytes
        while not connection.has_ended():
            has_room: asyncio.Future[None] = loop.create_future()
            connection.when_room(lambda f=has_room: f.done() or f.set_result(None))  # type: ignore[misc]
            try:
                async with asyncio.timeout(self._config.resume_stall_s):
                    await has_room
                return
            except TimeoutError:
                if connection.unread_bytes >= unread:
                    connection.close(CloseReason.SLOW_CONSUMER)
                unread = connection.unread_bytes
