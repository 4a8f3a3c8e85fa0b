"""The clocks of stores: their seconds, and what is known of a server's."""

from __future__ import annotations

from collections.abc import Callable

from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Mid


def to_whole_s(mid: Mid) -> int:
    """The second of the clock of mids in which a mid lies."""
    return mid // TICKS_PER_SECOND


class HeardClock:
    """What a store server's clock must be by now, from what it said before.

    Given to the server with every call: it goes on from there after its wall
    clock was set back. Runs slower than the monotonic clock by a thousandth,
    more than two machines' clocks differ, so that it never leads the server's.
    """

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._heard = 0
        self._heard_at_ns = 0

    def hear(self, clock: int) -> None:
        """Take the clock of an answer; an older answer that comes late changes nothing."""
        now_ns = self._monotonic_ns()
        # Before the first one anything is above it.
        ticks = self._heard + (now_ns - self._heard_at_ns) * 999 // 100_000 if self._heard else 0
        if clock >= ticks - ticks % STEP:
            self._heard, self._heard_at_ns = clock, now_ns

    def bound(self) -> Mid:
        """The least that the server's clock can be; 0 before it was heard."""
        if self._heard == 0:
            return Mid(0)
        ticks = self._heard + (self._monotonic_ns() - self._heard_at_ns) * 999 // 100_000
        # Not Mid(...), which every save would call.
        return ticks - ticks % STEP  # type: ignore[return-value]
