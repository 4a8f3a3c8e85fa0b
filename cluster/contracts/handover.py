"""What comet nodes ask of each other while keys move between them.

The *new owner* of a key asks the *earlier* ones, which it knows from the
memberships before. A node answers whoever asks: what it is asked changes
nothing but its own subscribers' connections, and those of lost keys only wait
to be closed.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from cluster.model import Epoch, Key, Mid


class Forward(msgspec.Struct, frozen=True, array_like=True):
    """A message that the owner of a key has delivered, for connections that an earlier owner still holds."""

    key: Key
    mid: Mid
    payload: bytes
    # The store has it.
    is_stored: bool
    # Highest mid below this one that is stored for the key, as far as the owner knows. Who has
    # not delivered that yet reads the store first.
    prev: Mid


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node still has of a key."""

    # The membership that it knew when it answered. Under one at least as new as that in which
    # it lost the key, it takes no new connections.
    epoch: Epoch
    connections: int


class HandoverService(Protocol):
    """A comet node, as the others see it."""

    def forward(self, message: Forward) -> asyncio.Future[Held]:
        """Deliver to the connections that are left of a key, at the key's turn.

        Ordering: messages of one key in the order of the calls. One at or below
        what was delivered is passed over.

        Raises (through the future):
            OverloadedError: too much waits for the key.
        """
        ...

    def close_key(self, key: Key) -> asyncio.Future[Held]:
        """The key was deleted: close its connections that are left, at the key's turn."""
        ...

    async def still_saving(self, epoch: Epoch) -> list[Key]:
        """Which keys of other nodes it has still something in progress for: none but these will be saved for.

        Waits a little for them to be done.

        Raises:
            UnavailableError: it does not know a membership at least as new as `epoch`.
            OverloadedError: too much is in progress.
        """
        ...

    async def release(self, epoch: Epoch) -> bool:
        """Whether it has closed all connections of keys of other nodes. Waits a little for that.

        Raises:
            UnavailableError: it does not know a membership at least as new as `epoch`.
        """
        ...
