"""Resume: stored messages first, then live ones, without a gap or a repeat (docs/subscriber-protocol.md).

While a connection catches up, live messages of its key are held here. Stored
pages are read above the last mid that was sent, merged with the held ones by
mid and written as the socket takes them. The step from the last page to live
happens without an await, so nothing can come between.
"""

from __future__ import annotations

import asyncio
from collections import deque

from cluster.contracts.message import MessageService, Page
from cluster.errors import EnckeError
from cluster.model import Message, Mid
from cluster.stats import Counter
from comet.config import ResumeLimits
from comet.connection import Connection
from comet.protocol import RESUME_ACKNOWLEDGED, CloseReason, gap_document, message_document


class CatchUp:
    """What one connection holds while it catches up."""

    __slots__ = ("_connection", "_drops", "_held", "_held_bytes", "_limit_bytes", "is_overflowed")

    def __init__(self, connection: Connection, limit_bytes: int, drops: Counter) -> None:
        self._connection = connection
        # Live messages in the order of their mids.
        self._held: deque[Message] = deque()
        self._held_bytes = 0
        self._limit_bytes = limit_bytes
        self._drops = drops
        # Held messages were dropped: they must be read from the store.
        self.is_overflowed = False

    def hold(self, message: Message) -> bool:
        """Keep a live message for later; always true: it counts as accepted.

        Over the limit everything held is dropped, because the store has it
        too; messages that are not stored are lost here, and counted, when
        take_until() does not find them.
        """
        if self._held_bytes + len(message.payload) > self._limit_bytes and self._held:
            self._drops.inc("catch_up_overflow", len(self._held))
            self._held.clear()
            self._held_bytes = 0
            self.is_overflowed = True
        self._held.append(message)
        self._held_bytes += len(message.payload)
        return True

    def merge(self, page: Page) -> list[Message]:
        """The page and the held messages in mid order, without repeats.

        With more pages to come, held messages above the page stay held.
        """
        merged: list[Message] = []
        for stored in page.messages:
            self._take_below(stored.mid, merged)
            merged.append(stored)
        if not page.has_more and not self.is_overflowed:
            self._take_below(None, merged)
        return merged

    def _take_below(self, mid: Mid | None, into: list[Message]) -> None:
        held = self._held
        while held and (mid is None or held[0].mid <= mid):
            message = held.popleft()
            self._held_bytes -= len(message.payload)
            if message.mid != mid:
                into.append(message)


class Resumer:
    """Brings resuming connections up to date, a bounded number of loads at a time."""

    def __init__(self, messages: MessageService, limits: ResumeLimits, drops: Counter) -> None:
        self._messages = messages
        self._limits = limits
        self._drops = drops
        # Keeps a storm of reconnects from starving pushes of the store.
        self._loads = asyncio.Semaphore(limits.max_loads)
        self._tasks: set[asyncio.Task[None]] = set()
