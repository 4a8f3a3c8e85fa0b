"""Sends a push to the nodes that own its keys, and again while its time lasts.

Its node may have lost the key, left or died, and a try takes only a part of that time.
A push keeps its id in every try, so a try that turns out to have been done is not done
twice. Without the store nobody remembers an id: a push with expire 0 is tried again
only when surely nothing was delivered (merge.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cluster.contracts.comet import Push, PushReply
from cluster.errors import EnckeError, NotOwnerError, OutOfOrderError
from cluster.model import Key
from cluster.stats import Counter
from web.pushing.answers import Answers
from web.pushing.merge import Merge, may_try_again
from web.pushing.owners import FIRST_PAUSE_S, LAST_PAUSE_S, Owners
from web.pushing.pending import PendingPush


class Tries:
    """The tries of all pushes."""

    def __init__(self, owners: Owners, answers: Answers, retries: Counter) -> None:
        """Make none yet; `retries` counts those after the first."""
        self._owners = owners
        self._answers = answers
        self._retries = retries

    def send(
        self, pending: PendingPush, keys: list[Key], now: float, follows: Mapping[Key, str] | None = None
    ) -> None:
        """Ask the owners of `keys`, which are those of the push that are not done yet.

        Args:
            follows: see Pusher.begin(); for the first try only. When there is a second, it is known what
                became of those.

        Raises:
            NoNodeError: no comet node is registered. Nothing was sent.
        """
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

    async def wait_answered(self, pending: PendingPush) -> PushReply:
        """The answer to a push that was sent.

        Cancellation: only ends the waiting.

        Raises:
            EnckeError: no node took any of it; one node's reason.
        """
        if len(pending.calls) == 1:
            # One node owns all keys: its answer is the answer.
            is_idempotent = pending.is_idempotent
            try:
                reply = await self._answers.wait_answered(pending.calls[0][1], pending)
            except EnckeError as error:
                if not may_try_again(error.code, is_idempotent=is_idempotent):
                    raise
            else:
                if not any(may_try_again(f.code, is_idempotent=is_idempotent) for f in reply.failed):
                    return reply
        return await self._merged(pending)

    async def _merged(self, pending: PendingPush) -> PushReply:
        """Put the answers of all nodes and tries together."""
        merge = Merge(pending.keys, is_idempotent=pending.is_idempotent)
        pause_s = FIRST_PAUSE_S
        sent_at = pending.sent_at
        while True:
            for keys, future in pending.calls:
                try:
                    merge.add(keys, await self._answers.wait_answered(future, pending))
                except EnckeError as error:
                    merge.fail(keys, error)
            again = await self._wait_next_try(pending, merge, sent_at + pause_s)
            if not again:
                return merge.reply()
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
            self._retries.value += 1
            pending.tries += 1
            sent_at = asyncio.get_running_loop().time()
            try:
                self.send(pending, again, sent_at)
            except EnckeError as error:
                merge.fail(again, error)
                merge.give_up(merge.take_again())
                return merge.reply()

    async def _wait_next_try(self, pending: PendingPush, merge: Merge, earliest: float) -> list[Key]:
        """Wait until another try may find it otherwise.

        Args:
            earliest: not before, in the loop's clock. From the last try on, not from its failure: lines of a
                stream that have failed long before they have their turn do not wait one after the other.

        Returns:
            The keys that are to be tried again: none when there is no time or place left.
        """
        owners = self._owners
        again = merge.take_again()
        if not again:
            return []
        refused = {key: code for key, code in again.items() if code == NotOwnerError.code}
        if refused:
            owners.refresh()
        now = asyncio.get_running_loop().time()
        if set(again.values()) == {OutOfOrderError.code}:
            # What it follows is answered by now.
            earliest = now
        pause_s = max(0.0, earliest - now)
        may_wait = now + pause_s < pending.held_at or self._answers.hold(pending)
        if not (may_wait and await owners.wait_newer(pending.epoch, pending.deadline, pause_s)):
            merge.give_up(again)
            return []
        if refused and owners.is_cut_off(pending.epoch):
            merge.give_up(refused)
            return [key for key in again if key not in refused]
        return list(again)
