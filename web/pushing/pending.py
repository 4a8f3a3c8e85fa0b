"""A push on its way: what was asked, and the calls that are not answered yet."""

from __future__ import annotations

import asyncio

import msgspec

from cluster.contracts.comet import PushReply
from cluster.errors import EnckeError, InDoubtError
from cluster.model import Epoch, Key
from web.pushing.merge import may_try_again
from web.pushing.places import held_at

# A node gives up at the timeout of the try and says what it knows; only one that
# says nothing at all is given up here.
GRACE_S = 0.5


class PendingPush(msgspec.Struct, eq=False):
    """A push that was sent and is not answered yet. A struct: made in a third of the time of a class."""

    keys: list[Key]
    payload: bytes
    expire_s: int
    push_id: str
    id_ttl_s: int
    # Loop clock.
    sent_at: float
    deadline: float
    # When the nodes should have answered the present try.
    answer_by: float
    # The membership under which the calls were made.
    epoch: Epoch
    # Keys of one node and its answer. Replaced when some are sent again.
    calls: list[tuple[list[Key], asyncio.Future[PushReply]]]
    tries: int = 1
    # It has one of the places for pushes that take long.
    is_held: bool = False

    @property
    def is_idempotent(self) -> bool:
        """Whether the store remembers its id, so that it may be repeated in doubt."""
        return self.push_id != "" and (self.expire_s > 0 or self.id_ttl_s > 0)

    @property
    def is_answered(self) -> bool:
        """Whether finish() will not have to wait."""
        for _, future in self.calls:
            if not future.done() or (_has_failed(future) and self._may_try_again(future)):
                return False
        return True

    @property
    def may_come_later(self) -> bool:
        """Whether some of it was not done when it was sent first: it may be done behind what is sent now."""
        if self.tries > 1:
            return True
        # Not any(): a generator is a twentieth of what a line of a stream costs (bench.stream).
        for _, future in self.calls:  # noqa: SIM110
            if future.done() and _has_failed(future):
                return True
        return False

    @property
    def held_at(self) -> float:
        """From when on it needs a place, unless it is done."""
        return held_at(self.sent_at, len(self.keys))

    @property
    def give_up_at(self) -> float:
        """When the present try is over."""
        return self.answer_by + GRACE_S

    @property
    def due_at(self) -> float:
        """When a first try is to be looked at: to be held, or given up."""
        return min(self.held_at, self.give_up_at)

    def abandon(self) -> None:
        """Nobody will look at the answers; the push goes on."""
        for _, future in self.calls:
            future.add_done_callback(_retrieve)

    def _may_try_again(self, future: asyncio.Future[PushReply]) -> bool:
        """Whether what has failed is tried again when somebody waits for it, while there is time."""
        if future.cancelled():
            # See answers.py.
            codes = [InDoubtError.code]
        elif (error := future.exception()) is not None:
            codes = [error.code if isinstance(error, EnckeError) else EnckeError.code]
        else:
            codes = [failure.code for failure in future.result().failed]
        is_idempotent = self.is_idempotent
        return any(may_try_again(code, is_idempotent=is_idempotent) for code in codes)


def _has_failed(future: asyncio.Future[PushReply]) -> bool:
    """Whether some of it was not done, as far as the answer tells."""
    return future.cancelled() or future.exception() is not None or bool(future.result().failed)


def _retrieve(future: asyncio.Future[PushReply]) -> None:
    # Otherwise asyncio reports the error of a future that nobody asked.
    if not future.cancelled():
        future.exception()
