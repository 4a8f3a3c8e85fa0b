"""Brings a push to the nodes that own its keys, and counts what becomes of it.

    push.py → pending.py (a push on its way)
            → tries.py (which nodes, and again) → owners.py · merge.py (their answers as one)
            → answers.py (how long they are waited for) → places.py

Does not know HTTP (web/api/pushapi.py), does not order, save or deliver
(comet/pushing/push.py). Pushes have an id where an answer can be lost, so that
they may be tried again; where none can, ids of our own would only cost the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cluster.contracts.comet import Push, PushReply
from cluster.errors import EnckeError
from cluster.model import Key
from web.metrics import WebMetrics
from web.pushing.answers import Answers
from web.pushing.owners import Owners
from web.pushing.pending import PendingPush
from web.pushing.tries import Tries


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
        self._answers = Answers(max_held)
        self._tries = Tries(owners, self._answers, metrics.retries)
        # Who expects a push calls take_success() when there is an answer.
        self.expect = self._answers.expect

    @property
    def held_count(self) -> int:
        """Pushes that take long and are waited for."""
        return self._answers.held_count

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
        self._answers.waiting.pop(future, None)
        if future.cancelled() or future.exception() is not None or future.result().failed:
            return False
        if pending.is_held:
            self._answers.let_go(pending)
        self._metrics.pushed.value += 1
        self._metrics.push_seconds.observe(self._loop.time() - pending.sent_at)
        return True

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

        Ordering: pushes to one key are done in the order of these calls, while the membership stays the
        same and the nodes answer. With `follows` one that is tried again is not overtaken by those that
        follow it: these are tried again behind it, if finish() is called for one after the other.

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
        # What has no id cannot be named.
        self._tries.send(pending, keys, now, follows if push_id else None)
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
            reply = await self._tries.wait_answered(pending)
        except EnckeError:
            self._metrics.not_pushed.value += 1
            raise
        finally:
            if pending.is_held:
                self._answers.let_go(pending)
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
        self._answers.close()

    def _make_id(self) -> str:
        if not self._id_prefix:
            return ""
        self._made_ids += 1
        return f"{self._id_prefix}{self._made_ids:x}"
