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
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from cluster.contracts.message import MessageService, Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.errors import (
    ConflictError,
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    NotOwnerError,
    RemoteProtocolError,
    UnavailableError,
)
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.storeclocks import StoreClocks
from comet.filling import Filler
from comet.forwarding import Forwarder
from comet.hub import Hub
from comet.metrics import CometMetrics
from comet.outgoing import Outgoing
from comet.protocol import CloseReason
from comet.pushjob import PushJob

log = logging.getLogger(__name__)

# Turns saved in one batch, and their payload bytes unless it is a single one.
MAX_BATCH_ITEMS = 64
MAX_BATCH_BYTES = 1024 * 1024

# Unsaved turns of one key delivered before other work of the loop.
MAX_TURNS_AT_ONCE = 256

# A message that is not stored is encoded once for all keys of a slice, if their servers' clocks
# do not differ by more than this: about the time that a slice takes.
SHARED_TICKS = TICKS_PER_SECOND // 1000

# Pause before a batch that was not answered is repeated; doubles up to the last.
FIRST_REPEAT_S = 0.02
LAST_REPEAT_S = 1.0

# A batch in doubt is given up this long after its deadline: the store will not
# carry it out any more, and what it has done of it the next save's `prev` tells.
DOUBT_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class QueueContext:
    """What the queues of a node share."""

    messages: MessageService
    hub: Hub
    clocks: StoreClocks
    metrics: CometMetrics
    # How long a read from the store may take.
    store_timeout_s: float
    # This node's registration, for the store's fence; empty = nobody can fence it.
    incarnation: Callable[[], str]
    # Whether this node still owns a key: it may have lost it since a push was accepted.
    owns: Callable[[Key], bool]
    # The store has refused a save because this incarnation is fenced.
    on_fenced: Callable[[str], object]
    # How a channel reads what it has missed.
    filler: Filler
    # Earlier owners of keys; None where keys do not move.
    forwarder: Forwarder | None
    # Runs a coroutine in a task that the pusher owns.
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    # The queue of a key has become empty.
    forget: Callable[[Key], object]
    # A job has been answered.
    on_done: Callable[[PushJob], object]


# A key's turn in a push: the job and the index of the key in it.
PushTurn = tuple[PushJob, int]
# Something that runs alone, between what came before and what comes after.
ExclusiveTurn = Callable[[], Coroutine[Any, Any, None]]


class KeyQueue:
    """The turns of one busy key."""

    __slots__ = (
        "_batch",
        "_context",
        "_is_asked",
        "_is_in_doubt",
        "_is_stopped",
        "_key",
        "_repeat_s",
        "_saving_since",
        "_turns",
    )

    def __init__(self, context: QueueContext, key: Key) -> None:
        self._context = context
        self._key = key
        self._turns: deque[PushTurn | ExclusiveTurn] = deque()
        # The turns that are being saved, or the one that is not stored and waits for a read; else empty.
        self._batch: list[PushTurn] = []
        # Monotonic seconds at which the batch was first asked to be saved.
        self._saving_since = 0.0
        self._repeat_s = FIRST_REPEAT_S
        # An answer to the batch was lost.
        self._is_in_doubt = False
        # The store has been asked to save the batch, and has not refused.
        self._is_asked = False
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._turns) + len(self._batch)

    def append(self, turn: PushTurn | ExclusiveTurn) -> None:
        """Queue a turn. The pusher has checked the bounds, and calls go() after the first one."""
        self._turns.append(turn)

    def stop(self) -> None:
        """Take no more turns; answer the pushes. What is being saved is in doubt, the rest was not done.

        Exclusive turns are dropped.
        """
        self._is_stopped = True
        turns, self._turns = self._turns, deque()
        is_unknown = self._is_asked or self._is_in_doubt
        self._fail_batch(InDoubtError.code if is_unknown else UnavailableError.code)
        for turn in turns:
            if isinstance(turn, tuple):
                self._fail(*turn, UnavailableError.code)

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
            if not job.is_saved:
                turns.popleft()
                if not self._context.owns(self._key):
                    # Its mid would be above what the new owner has saved meanwhile.
                    self._fail(job, index, NotOwnerError.code)
                    continue
                forwarder = self._context.forwarder
                if forwarder is not None and forwarder.is_active and forwarder.must_read(self._key):
                    self._batch.append(head)
                    self._is_asked = self._is_in_doubt = False
                    self._context.spawn(self._read_and_deliver(job, index))
                    return
                message = Outgoing(self._context.clocks.now(self._key), job.push.payload, False)
                deliver_unsaved(self._context, job, index, message)
            elif self._begin_batch():
                return
        self._context.forget(self._key)

    async def _run_exclusive(self, run: ExclusiveTurn) -> None:
        try:
            await run()
        finally:
            self.go()

    async def _read_and_deliver(self, job: PushJob, index: int) -> None:
        """Deliver a message that is not stored while an earlier owner may still be saving for the key.

        What that one has saved so far has mids below ours, so it goes first; what it
        will save has mids above the store's clock of this moment.
        """
        context = self._context
        message = Outgoing(context.clocks.now(self._key), job.push.payload, False)
        try:
            await context.filler.fill(self._key, None)
        except (EnckeError, TimeoutError) as error:
            log.warning("not delivered, the store does not tell: key=%s reason=%r", self._key, error)
            self._batch.clear()
            self._fail(job, index, UnavailableError.code)
        else:
            self._batch.clear()
            if context.owns(self._key):
                deliver_unsaved(context, job, index, message, is_exact=True)
            else:
                self._fail(job, index, NotOwnerError.code)
        self.go()

    # -- save

    def _begin_batch(self) -> bool:
        """Ask to save the turns at the head; False when all of them were too late to begin."""
        now = time.monotonic()
        items = self._take_batch(now)
        if not items:
            return False
        channel = self._context.hub.channel(self._key)
        self._saving_since = now
        self._repeat_s = FIRST_REPEAT_S
        self._is_in_doubt = False
        sent = channel.cursor if channel else Mid(0)
        self._save(SaveBatch(self._key, items, sent, self._deadline(), self._context.incarnation()))
        return True

    def _take_batch(self, now: float) -> list[SaveItem]:
        turns = self._turns
        items: list[SaveItem] = []
        size = 0
        while turns and len(items) < MAX_BATCH_ITEMS:
            head = turns[0]
            if not isinstance(head, tuple) or not head[0].is_saved:
                break
            job, index = head
            size += len(job.push.payload)
            if items and size > MAX_BATCH_BYTES:
                break
            turns.popleft()
            if job.expires_at <= now:
                self._fail(job, index, DeadlinePassedError.code)
                continue
            self._batch.append(head)
            items.append(job.item)
        return items

    def _time_left_s(self) -> float:
        """How long somebody still waits for the batch."""
        batch = self._batch
        expires_at = batch[0][0].expires_at if len(batch) == 1 else max(job.expires_at for job, _ in batch)
        return expires_at - time.monotonic()

    def _deadline(self) -> Mid:
        """The same in the store's clock."""
        return Mid(self._context.clocks.now(self._key) + int(self._time_left_s() * TICKS_PER_SECOND))

    def _save(self, batch: SaveBatch) -> None:
        if self._is_stopped:
            return
        self._is_asked = True
        answer = self._context.messages.save(batch)
        answer.add_done_callback(partial(self._on_answer, batch))

    def _on_answer(self, batch: SaveBatch, answer: asyncio.Future[SaveReply]) -> None:
        if answer.cancelled():
            # The loop is being closed; nobody waits any more.
            return
        error = answer.exception()
        if self._is_stopped:
            return
        if error is None:
            reply = answer.result()
            if len(reply.results) == len(self._batch):
                self._on_saved(reply)
                return
            error = RemoteProtocolError(f"{len(reply.results)} results for {len(self._batch)} messages")
        self._is_asked = False
        if isinstance(error, NotOwnerError):
            self._context.on_fenced(batch.incarnation)
        if isinstance(error, UnavailableError) and not isinstance(error, DeadlinePassedError):
            self._repeat_later(batch, error)
        elif isinstance(error, DeadlinePassedError) and self._time_left_s() > 0:
            self._context.spawn(self._save_by_its_clock(batch))
        else:
            if not isinstance(error, EnckeError) or isinstance(error, RemoteProtocolError):
                log.error("save failed: key=%s", self._key, exc_info=error)
            self._fail_batch(error.code if isinstance(error, EnckeError) else EnckeError.code)

    def _fail_batch(self, code: str) -> None:
        turns, self._batch = self._batch, []
        for job, index in turns:
            self._fail(job, index, code)
        self.go()

    async def _save_by_its_clock(self, batch: SaveBatch) -> None:
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
            self._fail_batch(DeadlinePassedError.code)
            return
        self._save(msgspec.structs.replace(batch, deadline=self._deadline()))

    def _repeat_later(self, batch: SaveBatch, error: UnavailableError) -> None:
        """Ask again with the same ids: in doubt to learn what became of it, else in the hope of another node.

        While an answer is lost nothing else of this key is saved until the store
        has told. A store that has the ids says so whenever it is asked; one that
        has not refuses them after the deadline.
        """
        if isinstance(error, InDoubtError) and not self._is_in_doubt:
            self._is_in_doubt = True
            self._context.metrics.in_doubt.inc()
            log.warning("save in doubt, repeating: key=%s reason=%r", self._key, error)
        patience_s = self._time_left_s() + (DOUBT_GRACE_S if self._is_in_doubt else 0.0)
        if self._repeat_s >= patience_s:
            # Answered before its callers stop waiting, where nothing is in doubt.
            self._fail_batch(InDoubtError.code if self._is_in_doubt else error.code)
            return
        asyncio.get_running_loop().call_later(self._repeat_s, self._save, batch)
        self._repeat_s = min(self._repeat_s * 2, LAST_REPEAT_S)

    # -- deliver

    def _on_saved(self, reply: SaveReply) -> None:
        context = self._context
        context.clocks.hear(self._key, reply.clock, int(self._saving_since * 1e9))
        context.metrics.save_seconds.observe(time.monotonic() - self._saving_since)
        channel = context.hub.channel(self._key)
        if channel is not None and has_hole(channel.cursor, reply.results):
            context.spawn(self._fill_and_deliver(reply.results))
        else:
            self._deliver(reply.results, {})

    def _deliver(self, results: list[SaveResult], filled: dict[Mid, int]) -> None:
        """Deliver the batch, answer its turns, take the next ones.

        Args:
            filled: mids that _fill() has delivered already, and to how many connections.
        """
        batch, self._batch = self._batch, []
        # Its repeat finds what the first attempt stored: that is no repeat of the caller's.
        was_in_doubt = self._is_in_doubt
        forwarder = self._context.forwarder
        for (job, index), result in zip(batch, results, strict=True):
            if result.outcome is Outcome.CONFLICT:
                self._fail(job, index, ConflictError.code)
                continue
            online = filled.get(result.mid, 0)
            channel = self._context.hub.channel(self._key)
            is_repeat = result.outcome is Outcome.REPEATED
            if channel is not None and (result.mid > channel.cursor or not is_repeat):
                online = channel.deliver(Outgoing(result.mid, job.push.payload, job.push.expire_s > 0))
                self._context.metrics.deliveries.value += online
            if forwarder is not None and forwarder.is_active:
                # Of a repeat it is not known what stands before it.
                prev = Mid(result.mid - STEP) if is_repeat else result.prev
                is_stored = job.push.expire_s > 0
                forwarder.forward(self._key, result.mid, job.push.payload, is_stored, prev)
            job.settle(index, result.mid, online, is_repeat and not was_in_doubt)
            if job.is_done:
                self._context.on_done(job)
        self.go()

    async def _fill_and_deliver(self, results: list[SaveResult]) -> None:
        """The channel has missed what another node saved: read that first, so that order holds."""
        filled: dict[Mid, int] = {}
        try:
            await self._fill(results, filled)
        except Exception as error:
            # A bug, too: the pushes are answered, and the key goes on.
            is_known = isinstance(error, EnckeError | TimeoutError)
            log.log(
                logging.WARNING if is_known else logging.ERROR,
                "hole not filled, connections closed: key=%s reason=%r",
                self._key,
                error,
                exc_info=None if is_known else error,
            )
            # They can resume; staying would hide the hole.
            self._context.hub.close_key(self._key, CloseReason.INTERNAL)
        self._deliver(results, filled)

    async def _fill(self, results: list[SaveResult], filled: dict[Mid, int]) -> None:
        context = self._context
        context.metrics.holes.inc()
        new = [r.mid for r in results if r.outcome is Outcome.SAVED]
        known = [r.mid for r in results if r.outcome is Outcome.REPEATED]
        # Up to the first new message; a batch that turned out to be stored is read itself.
        end = min(new) if new else Mid(max(known) + STEP)
        await context.filler.fill(self._key, end, filled)

    def _fail(self, job: PushJob, index: int, code: str) -> None:
        job.fail(index, code)
        if job.is_done:
            self._context.on_done(job)


def has_hole(cursor: Mid, results: list[SaveResult]) -> bool:
    """Whether something that the channel has not delivered lies before or between these results."""
    reached = cursor
    for result in results:
        if result.outcome is Outcome.SAVED:
            if result.prev > reached:
                return True
        elif result.outcome is Outcome.REPEATED and result.mid > reached:
            # Stored by a save whose answer was lost.
            return True
        reached = max(reached, result.mid)
    return False


def deliver_unsaved(
    context: QueueContext, job: PushJob, index: int, message: Outgoing, *, is_exact: bool = False
) -> None:
    """Deliver a message that is not stored, at its key's turn.

    Args:
        message: with a lower bound of the clocks of all store servers as its mid.
            Raised to that of the key's own server; and where the channel has sent
            that already the next free mid is taken. The store will settle above both.
        is_exact: the mid is of the key's own server, and is not to be raised to its clock.
    """
    key = job.push.keys[index]
    channel = context.hub.channel(key)
    forwarder = context.forwarder
    if channel is None:
        if forwarder is not None and forwarder.is_active:
            forwarder.forward_unsaved(key, context.clocks.now(key), message.payload)
        job.settle(index, message.mid, 0)
    else:
        if context.clocks.has_several and not is_exact:
            bound = context.clocks.now(key)
            if bound > message.mid + SHARED_TICKS:
                message = Outgoing(bound, message.payload, False)
        if message.mid <= channel.cursor:
            message = Outgoing(Mid(channel.cursor + STEP), message.payload, False)
        if forwarder is not None and forwarder.is_active:
            forwarder.forward_unsaved(key, message.mid, message.payload)
        online = channel.deliver(message)
        context.metrics.deliveries.value += online
        job.settle(index, message.mid, online)
    if job.is_done:
        context.on_done(job)
