"""What comet and web nodes ask of message nodes: save, load, acknowledge, delete.

The in-process store implements MessageService itself; a remote message node
is reached through a client that implements it too. One conformance suite
(tests/message/storage/store_suite/) states the contract in tests.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Protocol

import msgspec

from cluster.model import Key, Message, Mid, StoreServer, utf8_size

MAX_PUSH_ID_BYTES = 128
MAX_INCARNATION_BYTES = 64
MAX_EXPIRE_S = 2**32 - 1


class SaveItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message to be stored for the key of its batch."""

    # The same id for the same key is stored once, however often it is repeated. Empty = it is not
    # repeated in doubt, only when it was surely not done: there is a message, and no id to remember.
    push_id: str
    payload: bytes
    # Lifetime in the store's clock, at most MAX_EXPIRE_S. 0 = settle a mid and remember the id, but
    # store no message (a push to online subscribers only, with a caller's id).
    expire_s: int
    # How long the id is remembered; at least until the batch's deadline + 60 s.
    id_ttl_s: int = 0


def item_fault(item: SaveItem) -> str | None:
    """Say why a message can never be stored, or None."""
    push_id = item.push_id
    if not 0 <= utf8_size(push_id) <= MAX_PUSH_ID_BYTES:
        return f"a push id must have at most {MAX_PUSH_ID_BYTES} bytes of UTF-8"
    if not push_id and (item.id_ttl_s or not item.expire_s):
        return "what is to be remembered needs a push id"
    # More would not fit the servers' numbers, and fail what is saved together with it.
    if not 0 <= item.expire_s <= MAX_EXPIRE_S:
        return f"expire_s must be from 0 to {MAX_EXPIRE_S}"
    return None


class SaveBatch(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one key, in the order in which they are to be stored."""

    key: Key
    items: list[SaveItem]
    # Highest mid that the key's channel has sent (0 = unknown): mids go above it.
    sent: Mid
    # The store refuses the batch when its own clock has passed this, unless all
    # its ids are known: then it says REPEATED, so that a repeat after the
    # deadline tells for sure what became of a batch whose answer was lost.
    deadline: Mid
    # Registration of the comet node that saves (NodeInfo.instance). The store refuses one that
    # was fenced, so a node that lost its keys unawares cannot store for them. Empty = not checked.
    incarnation: str = ""


class Outcome(IntEnum):
    SAVED = 0
    # The id was known with the same payload: `mid` is the first one's; nothing was stored again.
    REPEATED = 1
    # The id was known with another payload; nothing was stored.
    CONFLICT = 2


class SaveResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of one item."""

    outcome: Outcome
    mid: Mid
    # SAVED: mid of the message stored for the key before this one, 0 if there
    # was none. A subscriber's channel that has not sent it yet loads it first.
    prev: Mid


class SaveReply(msgspec.Struct, frozen=True, array_like=True):
    """Results in the order of the items."""

    results: list[SaveResult]
    clock: Mid


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Stored, unexpired messages of one key, ascending."""

    messages: list[Message]
    # There are more after the last of these.
    has_more: bool
    # Highest mid that was removed to keep the key's limit and would not have
    # expired yet, 0 if none. Above the `after` that was asked for: there is a gap.
    trimmed: Mid
    clock: Mid


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """What the store holds of one key."""

    messages: int
    payload_bytes: int
    first: Mid
    last: Mid
    # Acknowledged mid by device.
    acknowledged: dict[str, Mid]


class Away(msgspec.Struct, frozen=True):
    """One server of a store cannot be used, or takes no writes."""

    # Since when.
    for_s: float
    # Why the last attempt has failed. Without secrets.
    reason: str


class Guarantee(msgspec.Struct, frozen=True):
    """What one server of a store makes of an answered push."""

    # "embedded", "redis", "mysql".
    backend: str
    # Where: a path, or an address without secrets. Names the server.
    location: str
    # Short name of the level, from strong to weak: "fsync", "everysec", "os", "none"; or "unknown".
    durability: str
    # The same in a sentence.
    promise: str
    # What an operator must know when this is weaker than an answered push deserves; empty = it is not.
    warning: str = ""
    # Of a server that did not work when it was last needed; the rest is what it promised before.
    away: Away | None = None


class MessageStatus(msgspec.Struct, frozen=True, array_like=True):
    """How busy a message node is, and what its store promises."""

    # One per server.
    stores: list[Guarantee]
    # Nodes that call it.
    connections: int
    # Messages stored since it was started.
    saved: int


class MessageNodeService(Protocol):
    """What is asked of one message node, not of its store."""

    async def status(self) -> MessageStatus:
        """Numbers for the node listing."""
        ...


class MessageService(Protocol):
    """A message node, or the store of this process."""

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """Store a batch durably, settle its mids, remember its ids.

        A plain function that returns a future, because one is asked for per
        busy key and a task for each would cost more than the save's own share.

        Ordering: batches of one key must not overlap; the caller waits for one
        before it sends the next.

        Cancellation: cancelling the future only stops waiting; the save goes on.

        Raises (through the future):
            DeadlinePassedError: nothing was stored, also by an earlier try with the same deadline (of
                items with ids).
            StorageError, UnavailableError: nothing was stored this time; another node, or a later try, may.
            NotOwnerError: the caller's incarnation is fenced; nothing was stored this time.
            InDoubtError: nobody knows; repeat with the same ids. What has none stays in doubt, unless it
                was rolled back.
            RequestError: the batch can never be stored.
        """
        ...

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """Read the next messages above `after`: at least one when there is one, else up to both limits."""
        ...

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """Remember that a device has processed everything up to mid. Never goes back."""
        ...

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """The device's acknowledged mid, 0 if it has none."""
        ...

    async def delete_key(self, key: Key) -> int:
        """Delete all stored messages of a key, its gap mark and acknowledged mids; return how many messages.

        Push ids stay known, so that a late repeat does not bring a message back.
        """
        ...

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """Delete one message; whether it was there."""
        ...

    async def inspect(self, key: Key) -> Stored:
        """Count what is stored for a key."""
        ...

    async def clock(self) -> Mid:
        """The store's clock as a mid, of several servers the lowest; does not go back while it is open."""
        ...

    async def clocks(self) -> list[StoreServer]:
        """All servers of the store with their clocks; for one that does not answer, what its clock must be.

        Raises:
            UnavailableError, StorageError: none answers.
        """
        ...

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether an incarnation was fenced; asks the store, never a memory of it.

        Raises:
            RequestError: no incarnation can have this name.
            UnavailableError, StorageError: the store did not answer.
        """
        ...
