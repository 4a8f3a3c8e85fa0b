"""Messages between the connection and the consumer, bounded in bytes and number."""

from __future__ import annotations

import asyncio
from collections import deque

from encke.client.words import Gap, Message

# What an item costs beside its payload, roughly; keeps empty messages bounded too.
_ITEM_BYTES = 200


class Inbox:
    """Received and not yet asked for.

    put() never waits, so that nothing that was read is lost; the reader asks
    wait_room() before it reads more, and so the server feels the slow consumer.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._items: deque[Message | Gap] = deque()
        self._bytes = 0
        self._limit_bytes = limit_bytes
        self._has_items = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closed = False
        self._error: BaseException | None = None

    @property
    def is_empty(self) -> bool:
        """Whether get() would wait, or end."""
        return not self._items

    @property
    def has_room(self) -> bool:
        """Whether the reader should go on."""
        return self._has_room.is_set()

    def put(self, item: Message | Gap) -> None:
        """Add an item; one always fits."""
        self._items.append(item)
        self._bytes += _size(item)
        if self._bytes >= self._limit_bytes:
            self._has_room.clear()
        self._has_items.set()

    async def wait_room(self) -> None:
        """Wait until half of the limit is free again, so that reading goes in long strides."""
        await self._has_room.wait()

    async def get(self) -> Message | Gap:
        """Take the oldest item.

        Cancellation: safe, an item is taken only in the step that returns it.

        Raises:
            StopAsyncIteration: closed, and everything was taken.
            BaseException: what close() was given, once everything was taken.
        """
        while not self._items:
            if self._is_closed:
                raise StopAsyncIteration if self._error is None else self._error
            self._has_items.clear()
            await self._has_items.wait()
        item = self._items.popleft()
        self._bytes -= _size(item)
        if self._bytes <= self._limit_bytes // 2:
            self._has_room.set()
        return item

    def close(self, error: BaseException | None = None) -> None:
        """Let get() end after what is there. Only the first call counts."""
        if self._is_closed:
            return
        self._is_closed = True
        self._error = error
        self._has_items.set()


def _size(item: Message | Gap) -> int:
    return _ITEM_BYTES + (len(item.payload) if isinstance(item, Message) else 0)
