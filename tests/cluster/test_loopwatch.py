"""cluster/loopwatch.py."""

from __future__ import annotations

import asyncio
import gc
import time

from cluster.loopwatch import THAW_INTERVAL_S, GarbageWatch, LoopLag
from cluster.stats import Stats
from tests.support.eventually import eventually


async def test_lag_probe_counts_ticks_and_the_ones_that_a_block_made_it_miss() -> None:
    stats = Stats()
    lag = LoopLag(0.01, stats)
    histogram = stats.histogram("loop_lag_seconds", "", (1.0,))
    lag.start()
    try:
        await eventually(lambda: histogram.count >= 2)
        before = histogram.count
        # The fault itself: something stops the loop.
        time.sleep(0.1)  # noqa: ASYNC251
        await eventually(lambda: histogram.count > before)
    finally:
        lag.stop()
    assert histogram.count - before >= 9
    assert histogram.quantile(1.0) >= 0.1


async def test_lag_probe_of_interval_zero_is_off() -> None:
    stats = Stats()
    lag = LoopLag(0.0, stats)
    lag.start()
    await asyncio.sleep(0)
    lag.stop()
    assert stats.histogram("loop_lag_seconds", "").count == 0


def test_survivors_of_a_full_collection_are_frozen_and_sometimes_thawed() -> None:
    now = [0.0]
    stats = Stats()
    watch = GarbageWatch(stats, lambda: now[0])
    watch.start()
    try:
        started_with = gc.get_freeze_count()
        assert started_with > 0
        kept = [[i] for i in range(1000)]
        gc.collect()
        assert gc.get_freeze_count() > started_with + 900
        now[0] = THAW_INTERVAL_S
        gc.collect()
        assert gc.get_freeze_count() == 0
        gc.collect()
        assert gc.get_freeze_count() > started_with + 900
        del kept
    finally:
        watch.stop()
    assert gc.get_freeze_count() == 0
    assert stats.histogram("gc_pause_seconds", "").count >= 3


def test_unused_connections_are_found_after_a_thaw() -> None:
    class Node:
        pass

    now = [0.0]
    watch = GarbageWatch(Stats(), lambda: now[0])
    watch.start()
    try:
        node = Node()
        node.itself = node  # type: ignore[attr-defined]
        gc.collect()
        del node
        now[0] = THAW_INTERVAL_S
        gc.collect()
        assert any(isinstance(one, Node) for one in gc.get_objects())
        gc.collect()
        assert not any(isinstance(one, Node) for one in gc.get_objects())
    finally:
        watch.stop()
