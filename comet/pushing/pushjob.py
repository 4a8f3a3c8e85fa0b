"""One push on its way through the keys' queues: collects a result per key, answers when all are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from cluster.contracts.comet import Failure, Push, PushReply
from cluster.contracts.message import SaveItem
from cluster.errors import ConflictError
from cluster.model import Mid

# Mid(...) is a call in Python.
_NO_MID = Mid(0)


class Chain(msgspec.Struct, eq=False):
    """Pushes to one key of which each follows the one before (Push.follows)."""

    # One of them was not done: those behind it must not be.
    is_broken: bool = False
    # When the last of them was; PushJob.started_at.
    taken_at: float = 0.0


class PushJob(msgspec.Struct, eq=False):
    """Results of one push, by index of its keys.

    Every index succeeds or fails exactly once; the last one answers. A
    struct: made in a third of the time of a class. begin() makes one.
    """

    push: Push
    # Gets the reply; may be cancelled by its owner, who only stops waiting.
    future: asyncio.Future[PushReply]
    # Monotonic seconds. Not the loop's time, which stands still within a turn and would make most
    # pushes look instant.
    started_at: float
    # Monotonic seconds after which a save must not begin any more.
    expires_at: float
    # What the store gets, to keep it or to have its id reserved; None = it does not go through the store.
    item: SaveItem | None
    # Keys without a result.
    pending: int
    _mids: list[Mid]
    _online: list[int]
    # Keys that have failed so far.
    failed: list[Failure]
    _repeated: list[int]
    _on_done: Callable[[PushJob], object]
    # By index of the keys, of a push that follows others or may be followed; else None.
    chains: list[Chain] | None = None

    @classmethod
    def begin(
        cls, push: Push, future: asyncio.Future[PushReply], now: float, on_done: Callable[[PushJob], object]
    ) -> PushJob:
        """Begin a push.

        Args:
            now: in monotonic seconds.
            on_done: called with the job when it has been answered.
        """
        count = len(push.keys)
        expire_s, id_ttl_s = push.expire_s, push.id_ttl_s
        is_saved = expire_s > 0 or id_ttl_s > 0
        item = SaveItem(push.push_id, push.payload, expire_s, id_ttl_s) if is_saved else None
        return cls(
            push,
            future,
            now,
            now + push.timeout_s,
            item,
            count,
            [_NO_MID] * count,
            [0] * count,
            [],
            [],
            on_done,
        )

    def is_out_of_order(self, index: int) -> bool:
        """Whether what it follows at this key was not done."""
        return self.chains is not None and self.chains[index].is_broken

    def succeed(self, index: int, mid: Mid, online: int, is_repeat: bool = False) -> None:
        """One key is done."""
        self._mids[index] = mid
        self._online[index] = online
        if is_repeat:
            self._repeated.append(index)
        pending = self.pending = self.pending - 1
        if not pending:
            self._answer()

    def fail(self, index: int, code: str) -> None:
        """One key has failed; `code` is that of an error class."""
        self.failed.append(Failure(index, code))
        if self.chains is not None and code != ConflictError.code:
            # It may be tried again. After a conflict it is not: those behind it go on.
            self.chains[index].is_broken = True
        self.pending -= 1
        if not self.pending:
            self._answer()

    def _answer(self) -> None:
        # Cancelled: the caller has gone. The push was done all the same.
        if not self.future.done():
            if self.failed:
                self.failed.sort(key=lambda failure: failure.index)
            if self._repeated:
                self._repeated.sort()
            self.future.set_result(PushReply(self._mids, self._online, self.failed, self._repeated))
        self._on_done(self)
