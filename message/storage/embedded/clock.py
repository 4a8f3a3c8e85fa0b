"""The embedded store's own clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cluster.mids import STEP, from_unix_ns
from cluster.model import Mid

NS_PER_SECOND = 1_000_000_000


class EmbeddedClock:
    """What time it is. May be asked from any thread.

    The clock of mids never goes back and never runs slower than the monotonic
    clock while the store is open: comet nodes extrapolate it (StoreClock in
    cluster/storeclocks.py), and a bound above the store's clock would put a
    message that is not stored above a later one that is. A wall clock that
    steps forward takes the clock of mids with it; stepping back again does not.
    """

    def __init__(self, wall_ns: Callable[[], int], monotonic_ns: Callable[[], int], floor: Mid) -> None:
        """Start the clock.

        Args:
            floor: highest mid that may have been settled before the start.
        """
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        # The clock was at least _base when the monotonic clock stood at _base_at_ns.
        self._base: int = floor
        self._base_at_ns = monotonic_ns()

    def wall_s(self) -> int:
        """Unix seconds, rounded down. Steps when the machine's clock is set."""
        return self._wall_ns() // NS_PER_SECOND

    def expires_at(self, expire_s: int) -> int:
        """Unix second at which something that begins now ends: rounded up, so never early."""
        return -(-self._wall_ns() // NS_PER_SECOND) + expire_s

    def mid(self) -> Mid:
        """The clock of mids, a multiple of STEP."""
        with self._lock:
            monotonic_ns = self._monotonic_ns()
            projected = self._base + (monotonic_ns - self._base_at_ns) // 100
            wall = from_unix_ns(self._wall_ns())
            if wall > projected:
                self._base, self._base_at_ns = wall, monotonic_ns
                return wall
            return Mid(projected - projected % STEP)
