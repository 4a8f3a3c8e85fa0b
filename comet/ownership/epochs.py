"""Holds back what was asked under a newer membership than this node has, until it has that one too.

A node that answered at once could refuse a key that it has just gained, or
take one that it has just lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cluster.errors import UnavailableError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import Epoch

log = logging.getLogger(__name__)


class _Waiting:
    """One who waits."""

    __slots__ = ("call", "epoch", "timer")

    def __init__(self, epoch: Epoch, call: Callable[[bool], None]) -> None:
        self.epoch = epoch
        self.call = call
        self.timer: asyncio.TimerHandle | None = None


class EpochGate:
    """Waits for memberships. What waits is bounded by the calls that the RPC server lets in."""

    def __init__(self, members: Members, patience_s: float) -> None:
        """Make a gate that is open for the present membership and older ones.

        Args:
            patience_s: nobody waits longer.
        """
        self._members = members
        self._patience_s = patience_s
        # In order of arrival, which is the order in which they go on.
        self._waiting: dict[_Waiting, None] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._is_stopped = False

    def take(self, membership: Membership) -> None:
        """The membership has changed: who waited for it goes on."""
        for waiting in list(self._waiting):
            if waiting.epoch <= membership.epoch:
                self._end(waiting, True)

    def when(self, epoch: Epoch, timeout_s: float, call: Callable[[bool], None]) -> None:
        """Call once: with True as soon as the membership is at least `epoch`, with False after the timeout.

        Ordering: calls with one epoch are made in the order in which they came.
        """
        if self._members.current.epoch >= epoch:
            call(True)
            return
        if self._is_stopped:
            call(False)
            return
        waiting = _Waiting(epoch, call)
        self._waiting[waiting] = None
        delay_s = min(timeout_s, self._patience_s)
        waiting.timer = asyncio.get_running_loop().call_later(delay_s, self._give_up, waiting)
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())

    async def wait(self, epoch: Epoch) -> bool:
        """Wait until the membership is at least `epoch`; False when it did not come in time."""
        reached: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def tell(is_reached: bool) -> None:
            if not reached.done():
                reached.set_result(is_reached)

        self.when(epoch, self._patience_s, tell)
        return await reached

    async def stop(self) -> None:
        """Let nobody wait any longer, nor from now on: the RPC server is stopped later."""
        self._is_stopped = True
        for waiting in list(self._waiting):
            self._give_up(waiting)
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _give_up(self, waiting: _Waiting) -> None:
        log.warning(
            "a newer membership did not arrive: epoch=%s ours=%s", waiting.epoch, self._members.current.epoch
        )
        self._end(waiting, False)

    def _end(self, waiting: _Waiting, is_reached: bool) -> None:
        if waiting in self._waiting:
            del self._waiting[waiting]
            if waiting.timer is not None:
                waiting.timer.cancel()
            waiting.call(is_reached)

    async def _refresh(self) -> None:
        """Ask the registry now: the news may be on its way, or the watch may have been lost."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._members.refresh()
        except (UnavailableError, TimeoutError) as error:
            log.debug("membership not refreshed: reason=%r", error)
        finally:
            self._refreshing = None
