"""One timer for the deadlines of many calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

# Deadlines that lie closer together than this are served at once.
GRAIN_S = 0.005


class Deadlines:
    """Wakes its owner at the earliest deadline.

    A timer per call would cost more than the rest of the call; nearly all
    calls are answered long before. The owner compares with `next_at`, which is
    all that a call pays, and looks through its calls when it is woken.
    """

    __slots__ = ("_expire", "_loop", "_timer", "next_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[float], float]) -> None:
        """Start without a deadline.

        Args:
            expire: is called with the loop's time, deals with every deadline
                up to it and returns the next one (math.inf = none).
        """
        self._loop = loop
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        # Loop time of the next wake-up.
        self.next_at = math.inf

    def wake_at(self, deadline: float) -> None:
        """Wake the owner at a deadline that is earlier than next_at."""
        self.cancel()
        self.next_at = deadline
        self._timer = self._loop.call_at(deadline, self._fire)

    def cancel(self) -> None:
        """Forget the deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.next_at = math.inf

    def _fire(self) -> None:
        self.cancel()
        now = self._loop.time()
        following = self._expire(now)
        if following < self.next_at:
            self.wake_at(max(following, now + GRAIN_S))
