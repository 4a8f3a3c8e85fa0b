"""The contract of a store: MessageService plus its life.

What every store promises beyond the types of cluster/contracts/message.py
(tests/message/storage/store_suite/ is the same in tests):

- **Durable before answered.** A save is answered with success only after it
  is as durable as describe() says.
- **Order.** The mids of one key strictly increase in the order of saving,
  also across restarts and when a clock steps back. They are settled in the
  inserting transaction: max(store's clock, last + 80, sent + 80). What is
  known of a key may be forgotten when it has neither messages nor ids; its
  last mid is then folded into a floor that new keys start above.
- **One clock.** Every answer carries the store's clock, which never goes back
  and never runs slower than real time while the store is open. Deadlines and
  ids are judged by it. Expiry is judged by the store's wall clock: a message
  lives for expire_s to expire_s + 1 seconds of it, and no read returns it later.
- **Ids.** The same id for the same key is stored once until the later of
  deadline + 60 s and id_ttl_s; a repeat makes that later, never sooner.
  A repeat after the deadline is answered, too, when all its ids are known: so
  whoever lost an answer can learn for sure what became of the save.
- **Limits.** Over the limits of a key its oldest messages are removed, never
  the newest. The highest removed mid is reported with each page until the
  removed messages would have expired: a false gap may be announced, a missed
  one never.
- **Reads** see what was answered before they were asked, and committed data only.
- **Fences.** A save of an incarnation that was fenced before is refused with
  NotOwnerError, also a repeat; checked in the inserting transaction, so that
  whichever node the save came through makes no difference.
- **Failure.** StorageError and DeadlinePassedError: surely not done.
  InDoubtError: done or not, only the store can tell; repeat with the same ids
  (or without, what was rolled back).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cluster.contracts.message import Guarantee, MessageService


class MessageStore(MessageService, Protocol):
    """A store: a MessageService with a life of its own."""

    # Done with the reason when the store cannot go on without being opened again
    # (a failed sync, a corrupted file). The process must end, non-zero.
    failed: asyncio.Future[str]

    async def start(self) -> None:
        """Open the store and check it.

        Raises:
            ConfigError: the operator must act; the text says how.
        """
        ...

    async def stop(self) -> None:
        """Finish what was asked for, refuse the rest, close. May be called more than once."""
        ...

    async def fence(self, incarnation: str) -> None:
        """Refuse the saves of an incarnation from now on, for FENCE_S (rules.py). Durable when it returns.

        Raises:
            RequestError: no incarnation can have this name.
            UnavailableError, StorageError: fence it again; not every server knows it.
        """
        ...

    async def remove_expired(self, limit: int) -> int:
        """Remove up to `limit` expired rows of each kind (messages, ids, marks, devices).

        Returns:
            How many rows; as many as `limit` or more means that there may be others.

        Raises:
            StorageError, UnavailableError: nothing was removed; try again later.
        """
        ...

    def describe(self) -> list[Guarantee]:
        """What each server of this store promises, as far as it is known now, and which are away.

        A server is away from the first attempt to connect that fails to the first that does not; while
        it is, the search for expired messages attempts it in each expiry_interval_s. The embedded store
        is away from the first write that its disk refuses until a message is stored.
        """
        ...

    def start_fault(self) -> str | None:
        """Why no server of this store has answered since start(); None when one has, if only once."""
        ...
