"""The order of one key: one bounded queue per busy key, gone when it is empty.

Everything that happens to a key takes its turn here: saving, delivering,
deleting. At most one batch of a key is being saved, and nothing is delivered
before its save was answered, so subscribers see messages in the order of their
mids. No lock is held across a call to the store; other keys go on.

Turns that stand behind each other are saved in one batch, so that a hot key is
saved as fast as the store answers, not one by one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

import msgspec

from cluster.contracts.message import SaveItem
from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    NotOwnerError,
    OutOfOrderError,
    UnavailableError,
)
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from comet.pushing.delivering import deliver_unsaved
from comet.pushing.pushjob import PushJob
from comet.pushing.saving import Saving
from comet.pushing.turns import ExclusiveTurn, PushTurn, QueueContext
from comet.subscribers.outgoing import Outgoing

log = logging.getLogger(__name__)

# Turns saved in one batch, and their payload bytes unless it is a single one.
MAX_BATCH_ITEMS = 64
MAX_BATCH_BYTES = 1024 * 1024

# Unsaved turns of one key delivered before other work of the loop.
MAX_TURNS_AT_ONCE = 256

# Longest wait for the store's clock before another look.
LEAD_STEP_S = 0.05


class KeyQueue(msgspec.Struct, eq=False):
    """The turns of one busy key. A struct: made in a third of the time of a class."""

    _context: QueueContext
    _key: Key
    # None until something has to wait: most keys have one turn at a time.
    _turns: deque[PushTurn | ExclusiveTurn] | None = None
    # What is being saved.
    _saving: Saving | None = None
    # The turn that is not stored and waits for a read.
    _reading: PushTurn | None = None
    _is_stopped: bool = False

    def __len__(self) -> int:
        saving = 0 if self._saving is None else len(self._saving)
        waiting = 0 if self._turns is None else len(self._turns)
        return waiting + saving + (self._reading is not None)

    def begin(self, turn: PushTurn | ExclusiveTurn) -> None:
        """Take the first turn. Most keys have one at a time: it is saved without being queued."""
        if isinstance(turn, tuple):
            now = time.monotonic()
            job, index = turn
            item = job.item
            if item is not None and job.expires_at > now and not job.is_out_of_order(index):
                self._save([turn], [item], job.expires_at, now)
                return
        self.append(turn)
        self.go()

    def append(self, turn: PushTurn | ExclusiveTurn) -> None:
        """Queue a turn behind the first. The pusher has checked the bounds."""
        if self._turns is None:
            self._turns = deque()
        self._turns.append(turn)

    def stop(self) -> None:
        """Take no more turns; answer the pushes. What is being saved is in doubt, the rest was not done.

        Exclusive turns are dropped.
        """
        self._is_stopped = True
        turns, self._turns = self._turns or (), None
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.stop()
        if self._reading is not None:
            self._end_reading(UnavailableError.code)
        for turn in turns:
            if isinstance(turn, tuple):
                job, index = turn
                job.fail(index, UnavailableError.code)

    def go(self) -> None:
        """Take turns until one has to wait or all are done."""
        if self._is_stopped:
            return
        turns = self._turns
        taken = 0
        while turns:
            taken += 1
            if taken > MAX_TURNS_AT_ONCE:
                asyncio.get_running_loop().call_soon(self.go)
                return
            head = turns[0]
            if not isinstance(head, tuple):
                turns.popleft()
                self._context.spawn(self._run_exclusive(head))
                return
            job, index = head
            if job.item is None:
                turns.popleft()
                if not self._context.owns(self._key):
                    # Its mid would be above what the new owner has saved meanwhile.
                    job.fail(index, NotOwnerError.code)
                    continue
                if job.is_out_of_order(index):
                    job.fail(index, OutOfOrderError.code)
                    continue
                if self._context.must_read(self._key):
                    self._reading = head
                    self._context.spawn(self._read_and_deliver(head))
                    return
                message = Outgoing(self._context.clocks.now(self._key), job.push.payload, False)
                deliver_unsaved(self._context, job, index, message)
            elif self._begin_saving():
                return
        self._context.forget(self._key)

    async def _run_exclusive(self, run: ExclusiveTurn) -> None:
        try:
            await run()
        finally:
            self.go()

    async def _read_and_deliver(self, turn: PushTurn) -> None:
        """Deliver a message that is not stored behind what is stored, and was not delivered here."""
        context = self._context
        job, index = turn
        try:
            mid = await self._read_before(job)
        except (EnckeError, TimeoutError) as error:
            log.warning("not delivered, the store does not tell: key=%s reason=%r", self._key, error)
            self._end_reading(UnavailableError.code)
        except Exception:
            # A bug: the push is answered, and the key goes on.
            log.exception("not delivered: key=%s", self._key)
            self._end_reading(EnckeError.code)
        else:
            if not context.owns(self._key):
                self._end_reading(NotOwnerError.code)
            elif self._reading is not None:
                self._reading = None
                message = Outgoing(mid, job.push.payload, False)
                deliver_unsaved(context, job, index, message, is_exact=True)
        self.go()

    async def _read_before(self, job: PushJob) -> Mid:
        """Deliver what is stored; a mid between that and what an earlier owner will store.

        What it will store has mids above the store's clock of this moment. So must ours not have: while
        the channel is ahead of that clock (a burst was stored, say), this waits for it, and reads again.

        Raises:
            UnavailableError: the clock is too far behind for the time that the push has.
            EnckeError, TimeoutError: the store did not answer.
        """
        context = self._context
        while True:
            bound = context.clocks.now(self._key)
            await context.filler.fill(self._key, None)
            context.hub.doubtful.discard(self._key)
            channel = context.hub.channel(self._key)
            lead_s = 0.0 if channel is None else (channel.cursor + STEP - bound) / TICKS_PER_SECOND
            if lead_s <= 0 or not context.must_read(self._key):
                return bound
            if time.monotonic() + lead_s >= job.expires_at:
                raise UnavailableError(f"the key is {lead_s:.3f} s ahead of the store's clock")
            # In steps: it may have become needless.
            await asyncio.sleep(min(lead_s, LEAD_STEP_S))

    def _end_reading(self, code: str) -> None:
        """Fail the turn that waits for a read, unless stop() has done it."""
        turn, self._reading = self._reading, None
        if turn is not None:
            job, index = turn
            job.fail(index, code)

    def _begin_saving(self) -> bool:
        """Ask to save the turns at the head; False when all of them were too late to begin."""
        now = time.monotonic()
        turns, items = self._take_batch(now)
        if not turns:
            return False
        expires_at = turns[0][0].expires_at if len(turns) == 1 else max(job.expires_at for job, _ in turns)
        self._save(turns, items, expires_at, now)
        return True

    def _save(self, turns: list[PushTurn], items: list[SaveItem], expires_at: float, now: float) -> None:
        saving = Saving(self._context, self._key, turns, expires_at, now, self._on_saving_ended)
        self._saving = saving
        saving.begin(items)

    def _on_saving_ended(self) -> None:
        self._saving = None
        if self._turns or self._is_stopped:
            self.go()
        else:
            self._context.forget(self._key)

    def _take_batch(self, now: float) -> tuple[list[PushTurn], list[SaveItem]]:
        waiting = self._turns
        turns: list[PushTurn] = []
        items: list[SaveItem] = []
        size = 0
        while waiting and len(items) < MAX_BATCH_ITEMS:
            head = waiting[0]
            if not isinstance(head, tuple):
                break
            job, index = head
            if job.item is None:
                break
            size += len(job.push.payload)
            if items and size > MAX_BATCH_BYTES:
                break
            waiting.popleft()
            if job.expires_at <= now:
                job.fail(index, DeadlinePassedError.code)
                continue
            if job.is_out_of_order(index):
                job.fail(index, OutOfOrderError.code)
                continue
            turns.append(head)
            items.append(job.item)
        return turns, items
