"""Watches the event loop: how late it runs, and how long the garbage collector stops it.

Both are measured in the process, because from outside a busy machine looks
the same as a late loop.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from cluster.stats import Stats

LAG_BOUNDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
PAUSE_BOUNDS = (0.0001, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

# A stop of the whole machine must not cost as many steps as ticks were missed.
MAX_MISSED_TICKS = 1000

# Everything is looked at again this often, see GarbageWatch.
THAW_INTERVAL_S = 900.0


class LoopLag:
    """Histogram of the event loop's lateness.

    A timer that is late by much has missed ticks; each of them is counted with
    the lateness that it would have seen, so quantiles tell what an event that
    arrives at any moment waits, not what the rare timer waits.
    """

    def __init__(self, interval_s: float, stats: Stats) -> None:
        """Prepare it; 0 = off. A tick costs about 3 us."""
        self._interval_s = interval_s
        self._histogram = stats.histogram("loop_lag_seconds", "Lateness of the event loop.", LAG_BOUNDS)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tick on the running loop until stop()."""
        if self._interval_s > 0:
            self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop ticking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not the loop's own time: uvloop's is that of the last turn, in milliseconds.
        due = time.monotonic() + self._interval_s
        self._timer = loop.call_later(self._interval_s, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        lag = max(0.0, time.monotonic() - due)
        for missed in range(min(int(lag / self._interval_s), MAX_MISSED_TICKS) + 1):
            self._histogram.observe(lag - missed * self._interval_s)
        self._arm(loop)


class GarbageWatch:
    """Keeps the pauses of the garbage collector short while connections are many.

    A full collection looks at every object: with 15,000 connections it stops
    the loop for 13 ms. What has survived one is therefore frozen (gc.freeze):
    later collections look only at what is new, 3 ms. Frozen objects are still
    freed when their last reference goes; only cycles among them are not found,
    so from time to time everything is thawed and looked at once.
    """

    def __init__(self, stats: Stats, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pauses = stats.histogram("gc_pause_seconds", "Stops by the garbage collector.", PAUSE_BOUNDS)
        self._monotonic = monotonic
        self._began = 0.0
        self._thawed_at = 0.0

    def start(self) -> None:
        """Collect, freeze what is there, and follow the collector until stop()."""
        gc.collect()
        gc.freeze()
        self._thawed_at = self._monotonic()
        gc.callbacks.append(self._follow)

    def stop(self) -> None:
        """Leave the collector as it was."""
        gc.callbacks.remove(self._follow)
        gc.unfreeze()

    def _follow(self, phase: str, info: dict[str, int]) -> None:
        # perf_counter, and no allocation of containers: this runs inside the collector.
        if phase == "start":
            self._began = time.perf_counter()
            return
        self._pauses.observe(time.perf_counter() - self._began)
        if info["generation"] < 2:
            return
        now = self._monotonic()
        if now - self._thawed_at >= THAW_INTERVAL_S:
            # The next full collection looks at everything; its survivors are frozen again.
            self._thawed_at = now
            gc.unfreeze()
        else:
            gc.freeze()
