"""Waits for the answers of nodes, and gives up what takes too long.

A call is given up by cancelling its future, when the node says nothing at all or when
there is no place to hold the push (places.py). What becomes of the push then is decided
by those who wait: push.py, tries.py.
"""

from __future__ import annotations

import asyncio

from cluster.contracts.comet import PushReply
from cluster.errors import InDoubtError
from web.pushing.pending import PendingPush
from web.pushing.places import Places


class Answers:
    """All answers that a web node waits for. Belongs to the loop that makes it."""

    def __init__(self, max_held: int | None) -> None:
        """Wait for none yet.

        Args:
            max_held: pushes that take long and are waited for, at a time; None = all.
        """
        # Kept, because asking for it asks the kernel for the process.
        self._loop = asyncio.get_running_loop()
        # First tries with one key that somebody waits for and that are not held yet; in the order in which
        # they were sent: who would come before another has a timer of its own. One timer for all: one each
        # would cost 3 us a push. Plain, because Pusher.take_success() takes out each that has succeeded.
        self.waiting: dict[asyncio.Future[PushReply], PendingPush] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._places = Places(max_held)

    @property
    def held_count(self) -> int:
        """Pushes that take long and are waited for."""
        return self._places.taken

    def expect(self, pending: PendingPush) -> None:
        """Cancel the answer to a push to one key that has not come in time.

        The caller takes it out of `waiting` when there is an answer.
        """
        self.waiting[pending.calls[0][1]] = pending
        if self._timer is None:
            self._arm()

    async def wait_answered(self, future: asyncio.Future[PushReply], pending: PendingPush) -> PushReply:
        """The answer of one of the nodes that have a push.

        Cancellation: only ends the waiting.

        Raises:
            InDoubtError: it has not come in time, or not while there was a place.
            Whatever the node answers.
        """
        if future.cancelled():
            # See expect().
            raise InDoubtError("no answer in time")
        if future.done():
            return future.result()
        # Nearly all are to one key, and waited for from the moment on at which they were sent. Not so
        # later tries, and lines of a stream.
        last = next(reversed(self.waiting.values()), pending)
        if pending.tries > 1 or len(pending.keys) > 1 or pending.sent_at < last.sent_at:
            return await self._wait_alone(future, pending)
        self.waiting[future] = pending
        if self._timer is None:
            self._arm()
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not future.cancelled() or (task is not None and task.cancelling()):
                raise
            raise InDoubtError("no answer in time") from None
        finally:
            self.waiting.pop(future, None)

    def hold(self, pending: PendingPush) -> bool:
        """Give a push that takes long a place; False = there is none, it is to be given up."""
        if not pending.is_held:
            pending.is_held = self._places.take()
        return pending.is_held

    def let_go(self, pending: PendingPush) -> None:
        """Free the place of a push that is held."""
        pending.is_held = False
        self._places.give_back()

    def close(self) -> None:
        """Stop the timer. Nobody may be waiting any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def _wait_alone(self, future: asyncio.Future[PushReply], pending: PendingPush) -> PushReply:
        """An answer with timers of its own."""
        if not pending.is_held and pending.held_at < pending.give_up_at:
            await self._wait_until(future, pending.held_at)
            if not (future.done() or self.hold(pending)):
                future.cancel()
        if not future.done():
            await self._wait_until(future, pending.give_up_at)
        if future.cancel() or future.cancelled():
            raise InDoubtError("no answer in time")
        return future.result()

    async def _wait_until(self, future: asyncio.Future[PushReply], until: float) -> None:
        await asyncio.wait([future], timeout=until - self._loop.time())

    def _arm(self) -> None:
        first = next(iter(self.waiting.values()), None)
        self._timer = None if first is None else self._loop.call_at(first.due_at, self._look)

    def _look(self) -> None:
        """Hold the first tries that take long, or give them up."""
        now = self._loop.time()
        late = []
        for future, pending in self.waiting.items():
            if pending.due_at > now:
                break
            late.append((future, pending))
        for future, pending in late:
            del self.waiting[future]
            if pending.give_up_at > now and self.hold(pending):
                self._loop.call_at(pending.give_up_at, future.cancel)
            else:
                future.cancel()
        self._arm()
