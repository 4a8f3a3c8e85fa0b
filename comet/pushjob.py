"""One push on its way through the keys' queues: collects a result per key, answers when all are there."""

from __future__ import annotations

import asyncio

from cluster.contracts.comet import Failure, Push, PushReply
from cluster.contracts.message import SaveItem
from cluster.model import Mid


class PushJob:
    """Results of one push, by index of its keys.

    Every index is settled or failed exactly once; the last one answers.
    """

    __slots__ = (
        "_failed",
        "_mids",
        "_online",
        "_pending",
        "_repeated",
        "expires_at",
        "future",
        "is_saved",
        "item",
        "push",
        "started_at",
    )

    def __init__(self, push: Push, future: asyncio.Future[PushReply], now: float) -> None:
        """Begin a push.

        Args:
            future: gets the reply; may be cancelled by its owner, who only stops waiting.
            now: monotonic seconds. Not the loop's time, which stands still within a turn
                and would make most pushes look instant.
        """
        count = len(push.keys)
        self.push = push
        self.future = future
        self.started_at = now
        # Monotonic seconds after which a save must not begin any more.
        self.expires_at = now + push.timeout_s
        # Takes its turn through the store: to be kept, or to have its id reserved.
        self.is_saved = push.expire_s > 0 or push.id_ttl_s > 0
        self.item = SaveItem(push.push_id, push.payload, push.expire_s, push.id_ttl_s)
        self._pending = count
        self._mids: list[Mid] = [Mid(0)] * count
        self._online = [0] * count
        self._failed: list[Failure] = []
        self._repeated: list[int] = []

    def settle(self, index: int, mid: Mid, online: int, is_repeat: bool = False) -> None:
        """One key is done."""
        self._mids[index] = mid
        self._online[index] = online
        if is_repeat:
            self._repeated.append(index)
        self._pending -= 1
        if not self._pending:
            self._answer()

    def fail(self, index: int, code: str) -> None:
        """One key has failed; `code` is that of an error class."""
        self._failed.append(Failure(index, code))
        self._pending -= 1
        if not self._pending:
            self._answer()

    @property
    def is_done(self) -> bool:
        """Whether every key has its result."""
        return not self._pending

    @property
    def failed_count(self) -> int:
        """Keys that have failed so far."""
        return len(self._failed)

    def _answer(self) -> None:
        # Cancelled: the caller has gone. The push was done all the same.
        if not self.future.done():
            if self._failed:
                self._failed.sort(key=lambda failure: failure.index)
            if self._repeated:
                self._repeated.sort()
            self.future.set_result(PushReply(self._mids, self._online, self._failed, self._repeated))
