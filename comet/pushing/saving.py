"""One batch of a key on its way through the store: asked for, repeated while in doubt, delivered or failed.

While an answer is lost nothing else of the key is saved (keyqueue.py): a batch
ends when its repeat was answered, or when the store cannot carry it out any more.
One with an item that has no id is not repeated in doubt, it could be stored twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from cluster.contracts.message import SaveBatch, SaveItem, SaveReply
from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    NotOwnerError,
    RemoteProtocolError,
    StorageError,
    UnavailableError,
)
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from comet.pushing.delivering import deliver_saved, fill_holes, has_hole
from comet.pushing.turns import PushTurn, QueueContext

log = logging.getLogger(__name__)

# Pause before a batch that was not answered is repeated; doubles up to the last.
FIRST_REPEAT_S = 0.02
LAST_REPEAT_S = 1.0

# A batch in doubt is given up this long after its deadline: the store will not
# carry it out any more, and what it has done of it the next save's `prev` tells,
# or a read before the next message that is not stored (Hub.doubtful).
DOUBT_GRACE_S = 5.0

# Mid(...) is a call in Python.
_NO_MID = Mid(0)


class Saving(msgspec.Struct, eq=False):
    """Turns of one key that are being saved. A struct: made in a third of the time of a class."""

    _context: QueueContext
    _key: Key
    # At least one.
    _turns: Sequence[PushTurn]
    # Monotonic seconds until which somebody waits.
    _expires_at: float
    # Monotonic seconds at which the batch was first asked to be saved.
    _since: float
    # Called once, when every turn has its answer; not after stop().
    _on_end: Callable[[], object]
    _repeat_s: float = FIRST_REPEAT_S
    # An answer to the batch was lost: it may be stored.
    _is_in_doubt: bool = False
    # The store has been asked to save the batch, and has not refused.
    _is_asked: bool = False
    # As it was asked for last.
    _batch: SaveBatch | None = None
    _is_stopped: bool = False

    def __len__(self) -> int:
        return len(self._turns)

    def begin(self, items: list[SaveItem]) -> None:
        """Ask to save the turns' items."""
        context, key = self._context, self._key
        channel = context.hub.channel(key)
        sent = _NO_MID if channel is None else channel.cursor
        self._save(SaveBatch(key, items, sent, self._deadline(self._since), context.incarnation()))

    def stop(self) -> None:
        """Answer the turns now: in doubt when the store was asked, else surely not done."""
        self._is_stopped = True
        is_unknown = self._is_asked or self._is_in_doubt
        self._fail_all(InDoubtError.code if is_unknown else UnavailableError.code)

    def _time_left_s(self) -> float:
        """How long somebody still waits for the batch."""
        return self._expires_at - time.monotonic()

    def _deadline(self, now: float) -> Mid:
        """Until when somebody waits, in the store's clock."""
        return Mid(self._context.clocks.now(self._key) + int((self._expires_at - now) * TICKS_PER_SECOND))

    def _save(self, batch: SaveBatch) -> None:
        if self._is_stopped:
            return
        self._is_asked = True
        self._batch = batch
        self._context.messages.save(batch).add_done_callback(self._on_answer)

    def _on_answer(self, answer: asyncio.Future[SaveReply]) -> None:
        if answer.cancelled():
            # The loop is being closed; nobody waits any more.
            return
        error = answer.exception()
        if self._is_stopped:
            return
        if error is None:
            reply = answer.result()
            if len(reply.results) == len(self._turns):
                self._on_saved(reply)
                return
            error = RemoteProtocolError(f"{len(reply.results)} results for {len(self._turns)} messages")
        self._is_asked = False
        batch = self._batch
        assert batch is not None
        if isinstance(error, NotOwnerError):
            self._context.on_fenced(batch.incarnation)
        if isinstance(error, UnavailableError) and not isinstance(error, DeadlinePassedError):
            # Also when the store has too much to do: the pauses grow, and the key waits meanwhile.
            self._repeat_later(batch, error)
        elif isinstance(error, StorageError) and self._is_in_doubt:
            # This time nothing was stored; that says nothing of the time before.
            self._repeat_later(batch, error)
        elif isinstance(error, DeadlinePassedError) and self._time_left_s() > 0:
            self._context.spawn(self._save_by_its_clock(batch, error))
        else:
            self._take_refusal(batch, error)

    def _take_refusal(self, batch: SaveBatch, error: BaseException) -> None:
        code = error.code if isinstance(error, EnckeError) else EnckeError.code
        if self._is_in_doubt and not (isinstance(error, DeadlinePassedError) and _has_ids(batch)):
            # It says nothing of the attempt whose answer was lost.
            code = InDoubtError.code
        if not isinstance(error, EnckeError) or isinstance(error, RemoteProtocolError):
            self._is_in_doubt = True
            log.error("save failed: key=%s", self._key, exc_info=error)
        self._fail(code)

    async def _save_by_its_clock(self, batch: SaveBatch, refusal: DeadlinePassedError) -> None:
        """The store says that it is too late, we that it is not: its wall clock has been set ahead.

        Our lower bound of its clock only advances as time passes. Surely
        nothing was stored, so the batch may be asked for as if for the first
        time, with a deadline in the clock that the store has now.
        """
        clocks = self._context.clocks
        try:
            async with asyncio.timeout(self._context.store_timeout_s):
                asked_at_ns = time.monotonic_ns()
                clocks.take(await self._context.messages.clocks(), asked_at_ns)
        except (EnckeError, TimeoutError) as error:
            log.warning("store's clock unknown: key=%s reason=%r", self._key, error)
        except Exception:
            # Whatever it is, the pushes are answered and the key goes on.
            log.exception("store's clock unknown: key=%s", self._key)
        if clocks.now(self._key) <= batch.deadline or self._time_left_s() <= 0:
            self._take_refusal(batch, refusal)
            return
        self._save(msgspec.structs.replace(batch, deadline=self._deadline(time.monotonic())))

    def _repeat_later(self, batch: SaveBatch, error: EnckeError) -> None:
        """Ask again with the same ids: in doubt to learn what became of it, else in the hope of another node.

        While an answer is lost nothing else of this key is saved until the store
        has told. A store that has the ids says so whenever it is asked; one that
        has not refuses them after the deadline.
        """
        if isinstance(error, InDoubtError):
            if not self._is_in_doubt:
                self._is_in_doubt = True
                self._context.metrics.in_doubt.inc()
                log.warning("save in doubt: key=%s reason=%r", self._key, error)
            if not (error.is_rolled_back or _has_ids(batch)):
                self._fail(InDoubtError.code)
                return
        patience_s = self._time_left_s() + (DOUBT_GRACE_S if self._is_in_doubt else 0.0)
        if self._repeat_s >= patience_s:
            # Answered before its callers stop waiting, where nothing is in doubt.
            self._fail(InDoubtError.code if self._is_in_doubt else error.code)
            return
        asyncio.get_running_loop().call_later(self._repeat_s, self._save, batch)
        self._repeat_s = min(self._repeat_s * 2, LAST_REPEAT_S)

    def _on_saved(self, reply: SaveReply) -> None:
        context, key = self._context, self._key
        context.clocks.hear(key, reply.clock, int(self._since * 1e9))
        context.metrics.save_seconds.observe(time.monotonic() - self._since)
        channel = context.hub.channel(key)
        if channel is not None and has_hole(channel.cursor, reply.results):
            context.spawn(self._fill_and_deliver(reply))
            return
        # As _deliver(), which a save that was stopped does not come to here.
        deliver_saved(context, key, self._turns, reply.results, {}, was_in_doubt=self._is_in_doubt)
        self._on_end()

    async def _fill_and_deliver(self, reply: SaveReply) -> None:
        """The channel has missed what another node saved: read that first, so that order holds."""
        self._deliver(reply, await fill_holes(self._context, self._key, reply.results))

    def _deliver(self, reply: SaveReply, filled: dict[Mid, int]) -> None:
        if self._is_stopped:
            return
        deliver_saved(
            self._context, self._key, self._turns, reply.results, filled, was_in_doubt=self._is_in_doubt
        )
        self._on_end()

    def _fail(self, code: str) -> None:
        if self._is_stopped:
            return
        if self._is_in_doubt:
            self._context.hub.doubt(self._key)
        self._fail_all(code)
        self._on_end()

    def _fail_all(self, code: str) -> None:
        for job, index in self._turns:
            job.fail(index, code)


def _has_ids(batch: SaveBatch) -> bool:
    """Whether all of it may be repeated in doubt."""
    return all(item.push_id for item in batch.items)
