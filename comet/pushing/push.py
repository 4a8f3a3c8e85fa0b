"""Accepts pushes and gives each key its turn: the way from a push to the queues of its keys.

Bounds what is in progress, serves pushes to very many keys in slices so that
others are not kept waiting, and owns the tasks that work in the background.
What happens at a key's turn is in keyqueue.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from cluster.contracts.comet import Push, PushReply
from cluster.contracts.message import (
    MAX_EXPIRE_S,
    MAX_PUSH_ID_BYTES,
    MessageService,
    SaveItem,
    item_fault,
)
from cluster.errors import (
    EnckeError,
    InDoubtError,
    NotOwnerError,
    OutOfOrderError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from cluster.model import Key
from cluster.storeclocks import StoreClocks
from comet.config import CometConfig
from comet.metrics import CometMetrics
from comet.pushing.backlog import Backlog
from comet.pushing.chains import Chains
from comet.pushing.delivering import deliver_unsaved
from comet.pushing.forwarding import Forwarder
from comet.pushing.keyqueue import KeyQueue
from comet.pushing.pushjob import PushJob
from comet.pushing.turns import ExclusiveTurn, PushTurn, QueueContext
from comet.subscribers.filling import Filler
from comet.subscribers.hub import Hub
from comet.subscribers.outgoing import Outgoing

# Of an id that cannot be too long, whatever is in it.
PLAIN_ID_CHARS = MAX_PUSH_ID_BYTES // 4


class Pusher:
    """All pushes in progress on this node."""

    def __init__(
        self,
        messages: MessageService,
        hub: Hub,
        clocks: StoreClocks,
        config: CometConfig,
        metrics: CometMetrics,
        filler: Filler,
        forwarder: Forwarder | None,
        *,
        incarnation: Callable[[], str],
        owns: Callable[[Key], bool],
        on_fenced: Callable[[str], object],
    ) -> None:
        """Make a pusher without work.

        Args:
            filler: how a channel reads what it has missed.
            forwarder: earlier owners of keys; None where keys do not move.
            incarnation: of this node's registration, for the store's fence; empty = nobody can fence us.
            owns: whether this node still owns a key, for what was accepted a while ago.
            on_fenced: told of the incarnation when the store refuses a save because of the fence.
        """
        # Kept: asking for it asks the kernel for the process, each time.
        self._create_future = asyncio.get_running_loop().create_future
        # Kept: every push needs it, and a method that is looked up is a new object.
        self._on_done = self._count_out
        self._config = config
        self._max_pending_keys, self._max_pending_bytes = config.max_pending_keys, config.max_pending_bytes
        self._metrics = metrics
        # Only keys with something in progress have a queue.
        self._queues: dict[Key, KeyQueue] = {}
        self._context = QueueContext(
            messages=messages,
            hub=hub,
            clocks=clocks,
            metrics=metrics,
            store_timeout_s=config.store_timeout_s,
            incarnation=incarnation,
            owns=owns,
            on_fenced=on_fenced,
            filler=filler,
            forwarder=forwarder,
            spawn=self._spawn,
            forget=self._queues.__delitem__,
        )
        # What large pushes have still to do.
        self._backlog = Backlog(self._serve)
        self._chains = Chains()
        self._tasks: set[asyncio.Task[None]] = set()
        # Outcomes of exclusive turns that somebody may wait for.
        self._outcomes: set[asyncio.Future[None]] = set()
        # Of the jobs in progress.
        self._pending_keys = 0
        self._pending_bytes = 0
        self._is_draining = False
        self._is_stopped = False
        # Done when nothing is in progress; made by those who wait for it.
        self._emptied: asyncio.Future[None] | None = None

    @property
    def busy_key_count(self) -> int:
        """Keys with something in progress."""
        return len(self._queues)

    @property
    def pending_key_count(self) -> int:
        """Results that pushes in progress still wait for, at most."""
        return self._pending_keys

    def busy_keys(self) -> list[Key]:
        """The keys with something in progress."""
        return list(self._queues)

    def is_busy(self, key: Key) -> bool:
        """Whether something of a key is in progress."""
        return key in self._queues

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push(); a push to idle keys with expire 0 is answered before this returns."""
        future: asyncio.Future[PushReply] = self._create_future()
        keys, size = len(push.keys), len(push.payload)
        pending_keys = self._pending_keys + keys
        pending_bytes = self._pending_bytes + size
        if (
            self._is_draining
            or not keys
            or pending_keys > self._max_pending_keys
            or pending_bytes > self._max_pending_bytes
            or len(push.push_id) > PLAIN_ID_CHARS
            or not 0 <= push.expire_s <= MAX_EXPIRE_S
            or (push.follows is not None and len(push.follows) != keys)
        ):
            refusal = self._refusal(push)
            if refusal is not None:
                self._metrics.pushes.inc("refused", keys)
                future.set_exception(refusal)
                return future
        job = PushJob.begin(push, future, time.monotonic(), self._on_done)
        self._pending_keys, self._pending_bytes = pending_keys, pending_bytes
        if push.follows is not None:
            self._chains.link(job)
        if self._backlog.unfinished:
            self._backlog.index()
        elif keys == 1 and job.item is not None:
            # As _serve_slice() would, which is made for many.
            key = push.keys[0]
            if key in self._queues:
                self._take_turn(key, job, 0)
            else:
                queue = self._queues[key] = KeyQueue(self._context, key)
                queue.begin((job, 0))
            return future
        self._serve_slice(job, 0)
        return future

    async def run_exclusive(self, key: Key, turn: ExclusiveTurn) -> None:
        """Run something at a key's turn, and wait for it; see begin_exclusive().

        Cancellation: the turn itself runs to its end.

        Raises:
            OverloadedError: too much waits for the key already.
            UnavailableError: the node was stopped before the turn.
            InDoubtError: it was stopped in the middle of it.
            Whatever the turn raises.
        """
        await self.begin_exclusive(key, turn)

    def begin_exclusive(self, key: Key, turn: ExclusiveTurn) -> asyncio.Future[None]:
        """Have something run at a key's turn: after what was pushed before, before what is pushed later.

        Returns:
            A future with the turn's outcome; cancelling it only stops waiting.

        Raises:
            OverloadedError: too much waits for the key already.
            UnavailableError: the node was stopped.
        """
        if self._is_stopped:
            raise _stopping()
        self._serve_earlier(key)
        queue = self._queues.get(key)
        if queue is not None and len(queue) >= self._config.max_queue_per_key:
            raise OverloadedError(f"{len(queue)} pushes wait for this key")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcomes.add(done)
        done.add_done_callback(self._outcomes.discard)

        async def run() -> None:
            try:
                await turn()
            except asyncio.CancelledError:
                if not done.done():
                    done.set_exception(InDoubtError("this node is stopping"))
                raise
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        self._enqueue(key, run)
        return done

    def at_turn(self, key: Key, call: Callable[[], None]) -> None:
        """Call after everything of the key that was accepted before; now, when nothing is in progress."""
        self._serve_earlier(key)
        if key not in self._queues:
            call()
            return

        async def turn() -> None:
            call()

        self._enqueue(key, turn)

    async def drain(self) -> None:
        """Refuse new pushes and wait for those in progress. The caller bounds the wait."""
        self._is_draining = True
        await self._wait_idle()

    async def stop(self) -> None:
        """End all work; answer what is in progress by what is known of it. May be called more than once."""
        self._is_draining = self._is_stopped = True
        queues = list(self._queues.values())
        self._queues.clear()
        for queue in queues:
            queue.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in list(self._outcomes):
            if not outcome.done():
                outcome.set_exception(_stopping())
        # Slices of large pushes come to their ends, refused.
        await self._wait_idle()

    async def _wait_idle(self) -> None:
        while self._pending_keys:
            if self._emptied is None:
                self._emptied = self._create_future()
            await asyncio.shield(self._emptied)

    def _refusal(self, push: Push) -> EnckeError | None:
        if self._is_draining:
            return UnavailableError("this node is draining")
        if not push.keys:
            return RequestError("a push needs a key")
        if push.follows is not None and len(push.follows) != len(push.keys):
            return RequestError("a push follows one push, or none, at each key")
        if push.expire_s or push.id_ttl_s:
            # The store would refuse all that is saved together with it.
            fault = item_fault(SaveItem(push.push_id, push.payload, push.expire_s, push.id_ttl_s))
            if fault:
                return RequestError(fault)
        is_full = (
            self._pending_keys + len(push.keys) > self._config.max_pending_keys
            or self._pending_bytes + len(push.payload) > self._config.max_pending_bytes
        )
        # A single push that is larger than the bound still has its chance alone.
        if is_full and self._pending_keys:
            return OverloadedError("too many pushes in progress")
        return None

    def _serve_slice(self, job: PushJob, start: int) -> None:
        """Give the next keys of a push their turn, and the rest after other work of the loop."""
        keys = job.push.keys
        end = min(start + self._config.fan_out_slice, len(keys))
        queues = self._queues
        context = self._context
        backlog = self._backlog
        is_contended = backlog.is_contended
        is_stopped = self._is_stopped
        # Asked once: a call for each key would be 1 % of what a delivery costs (bench.fanout).
        is_chained = job.chains is not None
        forwarder = context.forwarder
        # As must_read() decides for each key; most of the time for none.
        is_complete = not context.hub.doubtful and (forwarder is None or not forwarder.is_active)
        message = Outgoing(context.clocks.lowest(), job.push.payload, False)
        for index in range(start, end):
            key = keys[index]
            if is_contended and not backlog.serve_before(key, job):
                continue
            if is_stopped:
                job.fail(index, UnavailableError.code)
                continue
            if start and not context.owns(key):
                job.fail(index, NotOwnerError.code)
                continue
            if is_chained and job.is_out_of_order(index):
                job.fail(index, OutOfOrderError.code)
                continue
            if job.item is None and key not in queues and (is_complete or not context.must_read(key)):
                deliver_unsaved(context, job, index, message)
            else:
                self._take_turn(key, job, index)
        if len(keys) > self._config.fan_out_slice:
            backlog.advance(job, end)
            if end < len(keys):
                asyncio.get_running_loop().call_soon(self._serve_slice, job, end)

    def _serve(self, job: PushJob, index: int) -> None:
        """Give one key of a push its turn."""
        key = job.push.keys[index]
        if self._is_stopped:
            job.fail(index, UnavailableError.code)
            return
        if not self._context.owns(key):
            job.fail(index, NotOwnerError.code)
            return
        # Queued even when it is idle: the queue knows what must come first.
        self._take_turn(key, job, index)

    def _serve_earlier(self, key: Key) -> None:
        """Let a key have its turns in pushes that were called before, though their slices are to come."""
        if self._backlog.unfinished:
            self._backlog.index()
            self._backlog.serve_before(key, None)

    def _take_turn(self, key: Key, job: PushJob, index: int) -> None:
        queue = self._queues.get(key)
        if queue is not None and len(queue) >= self._config.max_queue_per_key:
            job.fail(index, OverloadedError.code)
            return
        self._enqueue(key, (job, index))

    def _enqueue(self, key: Key, turn: PushTurn | ExclusiveTurn) -> None:
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(turn)
            return
        queue = self._queues[key] = KeyQueue(self._context, key)
        queue.begin(turn)

    def _count_out(self, job: PushJob) -> None:
        metrics = self._metrics
        push, failed = job.push, len(job.failed)
        keys = len(push.keys)
        metrics.pushed.value += keys - failed
        if failed:
            metrics.pushes.inc("failed", failed)
        metrics.push_seconds.observe(time.monotonic() - job.started_at)
        self._pending_keys -= keys
        self._pending_bytes -= len(push.payload)
        if self._emptied is not None and not self._pending_keys:
            self._emptied.set_result(None)
            self._emptied = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _stopping() -> UnavailableError:
    return UnavailableError("this node is stopping")
