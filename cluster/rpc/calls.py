"""Calls of one client that wait for their answers, and how those end that get none."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from cluster.errors import EnckeError, UnavailableError
from cluster.rpc.deadlines import Deadlines
from cluster.rpc.methods import Method
from cluster.stats import LabelledCounter

# A call that waits for its answer: its future, method, deadline (loop time) and
# the bytes of its request. A tuple, because one is made for every call: an
# object would cost a quarter of a microsecond (bench/rpc.py).
Call = tuple[asyncio.Future[Any], Method[Any], float, int]


class Calls:
    """Those of one client, which adds them and takes out the answered ones itself (client.py)."""

    __slots__ = ("_address", "_errors", "_idle", "_loop", "bytes", "deadlines", "unsent", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str, errors: LabelledCounter) -> None:
        """Start without a call.

        Args:
            address: of the peer, for the texts of errors.
            errors: counts the calls that have failed, by code.
        """
        self._loop = loop
        self._address = address
        self._errors = errors
        # By number, in the order of the calls; always the same dict. Plain, as the next.
        self.waiting: dict[int, Call] = {}
        # Of the requests of all that wait.
        self.bytes = 0
        # Encoded arguments of those that could not be sent yet.
        self.unsent: dict[int, bytes] = {}
        # Of those that wait. Who adds one sees to it that it is woken in time.
        self.deadlines = Deadlines(loop, self._expire)
        # Done when none waits; None while nobody asks.
        self._idle: asyncio.Future[None] | None = None

    def fail(self, future: asyncio.Future[Any], error: EnckeError) -> None:
        """End a call that is not among those that wait, or not any more, with an error."""
        self._errors.inc(error.code)
        future.set_exception(error)

    def drop(self, number: int, error: EnckeError) -> None:
        """End a call that waits with an error, if its caller has not gone."""
        future, _, _, size = self.waiting.pop(number)
        self.unsent.pop(number, None)
        self.bytes -= size
        if not future.done():
            self.fail(future, error)
        if not self.waiting:
            self.become_idle()

    def drop_all(self, why: str, *, is_final: bool) -> None:
        """End those that were sent: nobody will answer them any more.

        Args:
            is_final: also those that were not sent; else they wait on.
        """
        for number, (_, method, _, _) in list(self.waiting.items()):
            if number not in self.unsent:
                self.drop(number, method.answer_lost(f"{self._address}: {why}"))
            elif is_final:
                self.drop(number, UnavailableError(f"{self._address}: {why}"))

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no call waits, at most so long. Cancellation: safe."""
        if self.waiting and timeout_s > 0:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.wait([self._idle], timeout=timeout_s)

    def become_idle(self) -> None:
        """Tell those who wait for it that no call waits any more."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _expire(self, now: float) -> float:
        following = math.inf
        for number, (_, method, deadline, _) in list(self.waiting.items()):
            if deadline > now:
                following = min(following, deadline)
            elif number in self.unsent:
                self.drop(number, UnavailableError(f"{self._address}: not connected in time"))
            else:
                self.drop(number, method.answer_lost(f"no answer in time from {self._address}"))
        return following
