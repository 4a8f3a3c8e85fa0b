"""Brings a push to the nodes that own its keys and merges what they answer.

Does not know HTTP (web/api/pushapi.py), does not order, save or deliver
(comet/pushing/push.py). A push is tried again while its time lasts: its node may have
lost the key, left or died, and a try takes only a part of that time. It keeps
its id in every try, so a try that turns out to have been done is not done
twice. Without the store nobody remembers an id: a push with expire 0 is tried
again only when surely nothing was delivered (merge.py). Where no answer can be
lost, ids of our own would only cost the store: pushes have none then.

Only so many pushes that take long are held at a time (places.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from cluster.contracts.comet import Push, PushReply
from cluster.errors import EnckeError, InDoubtError, NotOwnerError, OutOfOrderError
from cluster.model import Epoch, Key
from web.metrics import WebMetrics
from web.pushing.merge import Merge, may_try_again
from web.pushing.owners import FIRST_PAUSE_S, LAST_PAUSE_S, Owners
from web.pushing.places import Places, held_at

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
        """Whether finish() will not have to wait (unless the ring has changed)."""
        return all(future.done() for _, future in self.calls)

    @property
    def may_come_later(self) -> bool:
        """Whether some of it was not done when it was sent first: it may be done behind what is sent now."""
        return self.tries > 1 or any(_has_failed(future) for _, future in self.calls)

    @property
    def held_at(self) -> float:
        """From when on it needs a place, unless it is done."""
        return held_at(self.sent_at, len(self.keys))

    @property
    def give_up_at(self) -> float:
        """When the present try is over."""
        return self.answer_by + GRACE_S

    def abandon(self) -> None:
        """Nobody will look at the answers; the push goes on."""
        for _, future in self.calls:
            future.add_done_callback(_retrieve)


class Pusher:
    """All pushes of a web node."""

    def __init__(
        self,
        owners: Owners,
        metrics: WebMetrics,
        id_prefix: str,
        idempotency_ttl_s: int,
        max_held: int | None = None,
    ) -> None:
        """Make a pusher. Needs a running loop.

        Args:
            id_prefix: its ids start with this, which must be unique for all time; empty = it makes none,
                because no answer can be lost.
            idempotency_ttl_s: how long a caller's ids are remembered.
            max_held: pushes that are held at a time; None = all that take long.
        """
        # Kept, because asking for it asks the kernel for the process, three times a push.
        self._loop = asyncio.get_running_loop()
        self._owners = owners
        self._metrics = metrics
        self._id_prefix = id_prefix
        self._made_ids = 0
        self._idempotency_ttl_s = idempotency_ttl_s
        # First tries with one key that somebody waits for and that are not held yet; in the order in which
        # they were sent: who would come before another has a timer of its own. One timer for all: one each
        # would cost 3 us a push.
        self._waiting: dict[asyncio.Future[PushReply], PendingPush] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._places = Places(max_held)

    @property
    def held_count(self) -> int:
        """Pushes that take long and are waited for."""
        return self._places.taken

    async def push_one(self, key: Key, payload: bytes, expire_s: int) -> str:
        """Push to one key; the code of the error if it failed, else nothing.

        The hot path: what begin() and finish() do, without what only many keys need.

        Cancellation, Raises: as finish().
        """
        pending = self.begin_one(key, payload, expire_s)
        if self.take_success(pending):
            return ""
        reply = await self.finish(pending)
        return reply.failed[0].code if reply.failed else ""

    def begin_one(self, key: Key, payload: bytes, expire_s: int) -> PendingPush:
        """As begin(), for one key."""
        owners = self._owners
        membership = owners.members.current
        epoch = membership.epoch
        now = self._loop.time()
        push_id = self._make_id()
        keys = [key]
        push = Push(keys, payload, expire_s, push_id, 0, owners.attempt_s, epoch)
        future = owners.comets(membership.owner(key)).push(push)
        deadline, answer_by = now + owners.timeout_s, now + owners.attempt_s
        calls = [(keys, future)]
        return PendingPush(keys, payload, expire_s, push_id, 0, now, deadline, answer_by, epoch, calls)

    def take_success(self, pending: PendingPush) -> bool:
        """Count a push to one key that has succeeded; False = it has not, finish() tells more.

        Once it is answered it is not expected any more.
        """
        future = pending.calls[0][1]
        if not future.done():
            return False
        self._waiting.pop(future, None)
        if future.cancelled() or future.exception() is not None or future.result().failed:
            return False
        if pending.is_held:
            self._let_go(pending)
        self._metrics.pushed.value += 1
        self._metrics.push_seconds.observe(self._loop.time() - pending.sent_at)
        return True

    def expect(self, pending: PendingPush) -> None:
        """Cancel the answer to a push to one key that has not come in time; finish() tells more.

        The caller calls take_success() when there is an answer.
        """
        self._waiting[pending.calls[0][1]] = pending
        if self._timer is None:
            self._arm()

    async def push(self, keys: list[Key], payload: bytes, expire_s: int, caller_id: str = "") -> PushReply:
        """Push to distinct keys and wait for the answer; see begin() and finish()."""
        return await self.finish(self.begin(keys, payload, expire_s, caller_id))

    def begin(
        self,
        keys: list[Key],
        payload: bytes,
        expire_s: int,
        caller_id: str = "",
        follows: Mapping[Key, str] | None = None,
    ) -> PendingPush:
        """Send a push to the owners of its keys.

        Ordering: pushes to one key are done in the order of these calls, while
        the membership stays the same and the nodes answer. With `follows`
        one that is tried again is not overtaken by those that follow it: these are tried again behind it,
        if finish() is called for one after the other.

        Args:
            keys: distinct, at least one.
            payload: canonical.
            expire_s: seconds in the store, 0 = online connections only.
            caller_id: remembered for the configured time; empty = one may be made up for our own tries.
            follows: the id (PendingPush.push_id) of the push before it to a key, where that is not
                answered yet; None = it may be done in any order, and nothing follows it.

        Raises:
            NoNodeError: no comet node is registered. Nothing was sent.
        """
        push_id = caller_id or self._make_id()
        id_ttl_s = self._idempotency_ttl_s if caller_id else 0
        now = asyncio.get_running_loop().time()
        deadline = now + self._owners.timeout_s
        pending = PendingPush(keys, payload, expire_s, push_id, id_ttl_s, now, deadline, now, (0, 0), [])
        # Without an id it is not tried again.
        self._send(pending, keys, now, follows if push_id else None)
        return pending

    async def finish(self, pending: PendingPush) -> PushReply:
        """Wait for the answer to a push.

        Cancellation: only ends the waiting. What has begun is done.

        Returns:
            Results by index of the keys; `failed` holds the error code of each that failed.

        Raises:
            EnckeError: no node took any of it; one node's reason.
        """
        try:
            reply = await self._whole_answer(pending)
        except EnckeError:
            self._metrics.not_pushed.value += 1
            raise
        finally:
            if pending.is_held:
                self._let_go(pending)
        if not reply.failed:
            self._metrics.pushed.value += 1
        elif len(reply.failed) < len(pending.keys):
            self._metrics.pushed_partly.value += 1
        else:
            self._metrics.not_pushed.value += 1
        self._metrics.push_seconds.observe(asyncio.get_running_loop().time() - pending.sent_at)
        return reply

    def close(self) -> None:
        """Stop the timer. Nobody may be waiting any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _make_id(self) -> str:
        if not self._id_prefix:
            return ""
        self._made_ids += 1
        return f"{self._id_prefix}{self._made_ids:x}"

    def _send(
        self, pending: PendingPush, keys: list[Key], now: float, follows: Mapping[Key, str] | None = None
    ) -> None:
        timeout_s = max(0.0, min(self._owners.attempt_s, pending.deadline - now))
        pending.answer_by = now + timeout_s
        membership = self._owners.membership
        pending.epoch = membership.epoch
        calls = []
        for node, group in membership.group_by_owner(keys):
            push = Push(
                group,
                pending.payload,
                pending.expire_s,
                pending.push_id,
                pending.id_ttl_s,
                timeout_s,
                pending.epoch,
                None if follows is None else [follows.get(key, "") for key in group],
            )
            calls.append((group, self._owners.comets(node).push(push)))
        pending.calls = calls

    async def _whole_answer(self, pending: PendingPush) -> PushReply:
        if len(pending.calls) == 1:
            # One node owns all keys: its answer is the answer.
            is_idempotent = pending.is_idempotent
            try:
                reply = await self._answer(pending.calls[0][1], pending)
            except EnckeError as error:
                if not may_try_again(error.code, is_idempotent=is_idempotent):
                    raise
            else:
                if not any(may_try_again(f.code, is_idempotent=is_idempotent) for f in reply.failed):
                    return reply
        return await self._merged(pending)

    async def _merged(self, pending: PendingPush) -> PushReply:
        """Put the answers of all nodes together; try again what may be, while there is time and a place."""
        loop = asyncio.get_running_loop()
        owners = self._owners
        merge = Merge(pending.keys, is_idempotent=pending.is_idempotent)
        pause_s = FIRST_PAUSE_S
        while True:
            for keys, future in pending.calls:
                try:
                    merge.add(keys, await self._answer(future, pending))
                except EnckeError as error:
                    merge.fail(keys, error)
            again = merge.take_again()
            if not again:
                return merge.reply()
            refused = {key: code for key, code in again.items() if code == NotOwnerError.code}
            if refused:
                owners.refresh()
            if not await self._wait_try(pending, again, pause_s):
                merge.give_up(again)
                return merge.reply()
            if refused and owners.is_cut_off(pending.epoch):
                merge.give_up(refused)
                again = {key: code for key, code in again.items() if key not in refused}
                if not again:
                    return merge.reply()
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
            self._metrics.retries.value += 1
            pending.tries += 1
            try:
                self._send(pending, list(again), loop.time())
            except EnckeError as error:
                merge.fail(list(again), error)
                merge.give_up(merge.take_again())
                return merge.reply()

    async def _wait_try(self, pending: PendingPush, again: dict[Key, str], pause_s: float) -> bool:
        """Wait until what was not done may be tried again; False = it is not, for want of time or a place."""
        now = self._loop.time()
        if set(again.values()) == {OutOfOrderError.code}:
            # What it follows is answered by now, so there is nothing to wait for.
            return now < pending.deadline
        may_wait = now + pause_s < pending.held_at or self._hold(pending)
        return may_wait and await self._owners.wait_newer(pending.epoch, pending.deadline, pause_s)

    async def _answer(self, future: asyncio.Future[PushReply], pending: PendingPush) -> PushReply:
        if future.cancelled():
            # See expect().
            raise InDoubtError("no answer in time")
        if future.done():
            return future.result()
        # Nearly all are to one key, and waited for from the moment on at which they were sent. Not so
        # later tries, and lines of a stream.
        last = next(reversed(self._waiting.values()), pending)
        if pending.tries > 1 or len(pending.keys) > 1 or pending.sent_at < last.sent_at:
            return await self._answer_alone(future, pending)
        self._waiting[future] = pending
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
            self._waiting.pop(future, None)

    async def _answer_alone(self, future: asyncio.Future[PushReply], pending: PendingPush) -> PushReply:
        """An answer with timers of its own."""
        if not pending.is_held and pending.held_at < pending.give_up_at:
            await self._wait(future, pending.held_at)
            if not (future.done() or self._hold(pending)):
                future.cancel()
        if not future.done():
            await self._wait(future, pending.give_up_at)
        if future.cancel() or future.cancelled():
            raise InDoubtError("no answer in time")
        return future.result()

    async def _wait(self, future: asyncio.Future[PushReply], until: float) -> None:
        await asyncio.wait([future], timeout=until - self._loop.time())

    def _arm(self) -> None:
        first = next(iter(self._waiting.values()), None)
        self._timer = None if first is None else self._loop.call_at(_due(first), self._look)

    def _look(self) -> None:
        """Hold the first tries that take long, or give them up."""
        now = self._loop.time()
        late = []
        for future, pending in self._waiting.items():
            if _due(pending) > now:
                break
            late.append((future, pending))
        for future, pending in late:
            del self._waiting[future]
            if pending.give_up_at > now and self._hold(pending):
                self._loop.call_at(pending.give_up_at, future.cancel)
            else:
                future.cancel()
        self._arm()

    def _hold(self, pending: PendingPush) -> bool:
        """Give a push that takes long a place; False = there is none, it is to be given up."""
        if not pending.is_held:
            pending.is_held = self._places.take()
        return pending.is_held

    def _let_go(self, pending: PendingPush) -> None:
        pending.is_held = False
        self._places.give_back()


def _due(pending: PendingPush) -> float:
    """When a first try is to be looked at."""
    return min(pending.held_at, pending.give_up_at)


def _has_failed(future: asyncio.Future[PushReply]) -> bool:
    """Whether it is known by now that some of it was not done."""
    return future.done() and (
        future.cancelled() or future.exception() is not None or bool(future.result().failed)
    )


def _retrieve(future: asyncio.Future[PushReply]) -> None:
    # Otherwise asyncio reports the error of a future that nobody asked.
    if not future.cancelled():
        future.exception()
