"""Asks the comet node that owns a key, and asks again when the ring has changed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.contracts.comet import CometService
from cluster.errors import EnckeError, InDoubtError, NotOwnerError, OverloadedError, UnavailableError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import Epoch, Key, NodeInfo

log = logging.getLogger(__name__)

# Pause before what failed is tried again under the same membership, which would
# be the same answer if nothing has changed; doubles up to the last.
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 1.0

# After so long without news from the registry what a node refuses is not tried again: without
# news it goes to the same node. A registry that changes its leader is back by then.
CUT_OFF_S = 2.0

_T = TypeVar("_T")


class Owners:
    """The comet nodes, by key."""

    def __init__(
        self,
        members: Members,
        comets: Callable[[NodeInfo], CometService],
        *,
        timeout_s: float,
        attempt_s: float,
        cut_off_s: float = CUT_OFF_S,
    ) -> None:
        """Follow `members`.

        Args:
            comets: gives the service of an instance, the same one each time.
            timeout_s: what is asked may take so long, all tries together.
            attempt_s: one node may take so long for a push.
            cut_off_s: nobody waits longer for a registry that does not answer.
        """
        # Its `current` is the membership; read it once per decision.
        self.members = members
        self.comets = comets
        self.timeout_s = timeout_s
        self.attempt_s = min(attempt_s, timeout_s)
        self._cut_off_s = cut_off_s
        self._refreshing: asyncio.Task[None] | None = None
        # Loop clock of the first question for news that was not answered; None = the last one was.
        self._unanswered_since: float | None = None
        # Done at the next epoch; None while nobody waits for it.
        self._changed: asyncio.Future[None] | None = None
        self._epoch = members.current.epoch
        self._unwatch = members.watch(self._take)

    @property
    def membership(self) -> Membership:
        """Read it once per decision."""
        return self.members.current

    async def ask(self, key: Key, question: Callable[[CometService, Epoch], Awaitable[_T]]) -> _T:
        """Put a question to the owner of a key, to the next owner when the first says it is none.

        Cancellation: ends the question that is under way.

        Raises:
            NoNodeError: no comet node is registered.
            NotOwnerError: no node took the key in time, or the registry does not tell which would.
            InDoubtError: no answer in time.
            Whatever the node answers.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            membership = self.membership
            comet = self.comets(membership.owner(key))
            try:
                async with asyncio.timeout_at(deadline):
                    return await question(comet, membership.epoch)
            except TimeoutError:
                raise InDoubtError("the node of this key does not answer") from None
            except (InDoubtError, OverloadedError):
                raise
            except (NotOwnerError, UnavailableError) as error:
                if isinstance(error, NotOwnerError):
                    self.refresh()
                if not await self.wait_newer(membership.epoch, deadline, pause_s):
                    raise
                if isinstance(error, NotOwnerError) and self.is_cut_off(membership.epoch):
                    raise
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    def refresh(self) -> None:
        """See to it that the membership is read anew: a node knows a newer one than this."""
        if self._unanswered_since is None:
            self._unanswered_since = asyncio.get_running_loop().time()
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())

    async def wait_newer(self, epoch: Epoch, deadline: float, pause_s: float) -> bool:
        """Wait for a membership after `epoch`, but not longer than the pause.

        Args:
            epoch: the one under which a node failed.
            deadline: in the loop's clock.

        Returns:
            Whether there is time for another try.
        """
        remaining = deadline - asyncio.get_running_loop().time()
        if self.membership.epoch > epoch:
            return remaining > 0
        if remaining <= FIRST_PAUSE_S:
            return False
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._changed], timeout=min(pause_s, remaining - FIRST_PAUSE_S / 2))
        return True

    def is_cut_off(self, epoch: Epoch) -> bool:
        """Whether nothing newer than `epoch` is known, and the registry has not answered for a while.

        Other pushes are not to wait behind those that cannot succeed here; another web node may know more.
        """
        since = self._unanswered_since
        if since is None or self.membership.epoch > epoch:
            return False
        return asyncio.get_running_loop().time() - since >= self._cut_off_s

    async def stop(self) -> None:
        """Follow no more; end a question to the registry that is under way."""
        self._unwatch()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _take(self, membership: Membership) -> None:
        self._unanswered_since = None
        if membership.epoch == self._epoch:
            # Only other kinds of nodes have come or gone.
            return
        self._epoch = membership.epoch
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.members.refresh()
            self._unanswered_since = None
        except (EnckeError, TimeoutError) as error:
            log.debug("membership not refreshed: reason=%r", error)
        finally:
            self._refreshing = None
