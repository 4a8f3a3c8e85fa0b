"""Clocks that tests step."""

from __future__ import annotations

import time

NS = 1_000_000_000


class SteppedClock:
    """The machine's wall clock plus what the test has added."""

    def __init__(self) -> None:
        self._offset_ns = 0

    def advance(self, seconds: float) -> None:
        """Step; negative = back."""
        self._offset_ns += int(seconds * NS)

    def wall_ns(self) -> int:
        """As time.time_ns()."""
        return time.time_ns() + self._offset_ns
