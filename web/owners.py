"""Asks the comet node that owns a key, and asks again when the ring has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.contracts.comet import CometService
from cluster.errors import InDoubtError, NotOwnerError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import Epoch, Key, NodeInfo

# A node that refuses under the epoch that we have too may be about to change;
# asking again sooner would only be the same answer.
RETRY_PAUSE_S = 0.1

_T = TypeVar("_T")


class Owners:
    """The comet nodes, by key."""

    def __init__(
        self, members: Members, comets: Callable[[NodeInfo], CometService], timeout_s: float
    ) -> None:
        """Follow `members`; `comets` gives the service of an instance, the same one each time."""
        self._members = members
        self.comets = comets
        self.timeout_s = timeout_s

    @property
    def membership(self) -> Membership:
        """Read it once per decision."""
        return self._members.current

    async def ask(self, key: Key, question: Callable[[CometService, Epoch], Awaitable[_T]]) -> _T:
        """Put a question to the owner of a key, to the next owner when the first says it is none.

        Cancellation: ends the question that is under way.

        Raises:
            NoNodeError: no comet node is registered.
            NotOwnerError: no node took the key in time.
            InDoubtError: no answer in time.
            Whatever the node answers.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        while True:
            membership = self.membership
            comet = self.comets(membership.owner(key))
            try:
                async with asyncio.timeout_at(deadline):
                    return await question(comet, membership.epoch)
            except TimeoutError:
                raise InDoubtError("the node of this key does not answer") from None
            except NotOwnerError:
                if not await self.wait_newer(membership.epoch, deadline):
                    raise

    async def wait_newer(self, epoch: Epoch, deadline: float) -> bool:
        """Wait for a membership after `epoch`, but not longer than RETRY_PAUSE_S.

        Args:
            epoch: the one under which a node refused.
            deadline: in the loop's clock.

        Returns:
            Whether there is time for another try.
        """
        if self.membership.epoch > epoch:
            return True
        loop = asyncio.get_running_loop()
        remaining = deadline - loop.time()
        if remaining <= RETRY_PAUSE_S:
            return False
        changed: asyncio.Future[None] = loop.create_future()

        def on_change(_: Membership) -> None:
            if not changed.done():
                changed.set_result(None)

        self._members.on_change.append(on_change)
        try:
            await asyncio.wait([changed], timeout=RETRY_PAUSE_S)
        finally:
            self._members.on_change.remove(on_change)
        return True
