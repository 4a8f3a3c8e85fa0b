"""What web nodes ask of comet nodes: push, delete, inspect.

A comet node implements CometService itself (comet/app.py); one in another process is reached
through a client that implements it too. One suite (tests/comet/comet_suite/) states the
contract in tests.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from cluster.model import Epoch, Key, Mid


class Push(msgspec.Struct, frozen=True, array_like=True):
    """One payload for one or many keys, all owned by the node that is asked."""

    # Distinct, in the order in which the caller wants the results.
    keys: list[Key]
    payload: bytes
    # Seconds in the store; 0 = online connections only.
    expire_s: int
    # Unique per push, at most 128 bytes; with a key it names one message (I7). Empty = it is not
    # repeated in doubt, because no answer is lost on its way.
    push_id: str
    # The caller of the HTTP API chose push_id and may repeat it for this long.
    # 0 = the web node made it up for its own retries.
    id_ttl_s: int
    # How long the caller waits from now. Bounds saving, not delivery.
    timeout_s: float
    # The membership under which the caller chose this node.
    epoch: Epoch
    # For pushes that are sent behind each other without waiting, and must not be swapped: for each key the
    # push_id of the one before it that was not answered yet, "" = there is none. None = it may be done in
    # any order, and nothing follows it; all from nodes of the version before.
    follows: list[str] | None = None


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key of a push that failed: its index in Push.keys and the error's code (cluster/errors.py)."""

    index: int
    code: str


class PushReply(msgspec.Struct, frozen=True, array_like=True):
    """Results by index of Push.keys, in columns: a push may have 100,000 keys."""

    # 0 where the key failed.
    mids: list[Mid]
    # Connections that accepted the message; those that still catch up count.
    online: list[int]
    failed: list[Failure]
    # Indexes of keys for which this id had been pushed before; nothing was done again.
    repeated: list[int]


class ConnectionInfo(msgspec.Struct, frozen=True, array_like=True):
    """One live connection of a key."""

    transport: str
    device: str
    # Unix seconds.
    since: float
    # "host:port" of the peer.
    address: str
    unread_bytes: int
    # Highest mid sent to it.
    sent: Mid


class CometStatus(msgspec.Struct, frozen=True, array_like=True):
    """How busy a comet node is."""

    connections: int
    channels: int
    capacity: int
    # Keys pushed to since it was started, whatever became of it.
    pushes: int = 0
    # Of the node that answers; "" = of a version that does not tell.
    name: str = ""
    # Why it serves no key now, though it runs; None = it serves.
    fault: str | None = None


class CometService(Protocol):
    """A comet node, or the one of this process."""

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """Save (expire_s > 0) and deliver to each key.

        A failed key never fails the others. A push that has begun to save
        runs to its end even when nobody waits any more.

        Ordering: pushes to one key are saved and delivered in the order of the calls. One that
        fails may be called again, behind those that were called after it; a key for which
        `push.follows` names one that was not called here, or has failed for a reason
        that may pass, fails with OutOfOrderError's code.

        Cancellation: cancelling the future only stops waiting.

        Raises (through the future):
            NotOwnerError: keys are not this node's under an epoch at least push.epoch.
            RequestError: it has no key, or `follows` is not of its keys.
            OverloadedError: too much is in progress; nothing was begun.
            UnavailableError: draining, or no membership as new as push.epoch has come; nothing was begun.
        """
        ...

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """Delete a key's stored messages, close its connections; return how many messages there were.

        Takes its turn among the key's pushes: what was pushed before is gone,
        what is pushed after stays.

        Cancellation: what has begun runs to its end.

        Raises:
            NotOwnerError: the key is not this node's under an epoch at least `epoch`.
            OverloadedError: too much waits for the key.
            UnavailableError: the store did not answer in time, the node is stopping, or no membership as
                new as `epoch` reached it.
            InDoubtError: the node was stopped in the middle of it.
            EnckeError: whatever else the store answers.
        """
        ...

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        """The key's live connections on this node."""
        ...

    async def status(self) -> CometStatus:
        """Numbers for the node listing."""
        ...
