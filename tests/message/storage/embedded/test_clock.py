"""The embedded store's clock against every way in which a wall clock misbehaves, and across its ends."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Mid
from cluster.stats import Stats
from message.storage.clock import to_whole_s
from message.storage.embedded.clock import EmbeddedClock
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.clocks import SteppedClock
from tests.message.storage.stores import opened, settings_for

NS = 1_000_000_000
START_S = 1_790_000_000


class Clocks:
    def __init__(self) -> None:
        self.wall = START_S * NS
        self.monotonic = 5 * NS

    def run(self, seconds: float) -> None:
        self.wall += int(seconds * NS)
        self.monotonic += int(seconds * NS)

    def embedded_clock(self, floor: int = 0) -> EmbeddedClock:
        return EmbeddedClock(lambda: self.wall, lambda: self.monotonic, Mid(floor))


def ticks(seconds: float) -> int:
    return int(seconds * TICKS_PER_SECOND)


def test_clock_is_the_wall_clock_in_steps() -> None:
    clocks = Clocks()
    time = clocks.embedded_clock()
    clocks.run(1.000_000_123)

    assert time.mid() == ticks(START_S + 1)
    assert time.mid() % STEP == 0
    assert to_whole_s(time.mid()) == time.wall_s() == START_S + 1


def test_clock_goes_on_with_the_monotonic_one_when_the_wall_clock_steps_back() -> None:
    clocks = Clocks()
    time = clocks.embedded_clock()
    before = time.mid()
    clocks.wall -= 3600 * NS
    clocks.run(10)

    assert time.mid() == before + ticks(10)
    assert time.wall_s() == START_S - 3600 + 10


def test_clock_goes_on_when_the_wall_clock_is_frozen() -> None:
    clocks = Clocks()
    time = clocks.embedded_clock()
    before = time.mid()
    clocks.monotonic += 7 * NS

    assert time.mid() == before + ticks(7)


def test_clock_follows_a_step_ahead_and_does_not_come_back() -> None:
    clocks = Clocks()
    time = clocks.embedded_clock()
    clocks.wall += 1000 * NS
    ahead = time.mid()
    clocks.wall -= 1000 * NS
    clocks.run(1)

    assert ahead == ticks(START_S + 1000)
    assert time.mid() == ahead + ticks(1)


def test_clock_starts_at_the_floor_when_the_wall_clock_is_behind_it() -> None:
    clocks = Clocks()
    floor = ticks(START_S + 50)
    time = clocks.embedded_clock(floor)

    assert time.mid() == floor
    clocks.run(2)
    assert time.mid() == floor + ticks(2)
    clocks.run(100)
    assert time.mid() == floor + ticks(102)


def test_nothing_expires_early() -> None:
    clocks = Clocks()
    clocks.run(0.000_001)

    assert clocks.embedded_clock().expires_at(10) == START_S + 11
    assert Clocks().embedded_clock().expires_at(10) == START_S + 10


# -- across the store's ends, when the machine's clock is set back meanwhile


def store_on(data_dir: Path, clock: SteppedClock) -> EmbeddedStore:
    return EmbeddedStore(settings_for(data_dir), Stats(), wall_ns=clock.wall_ns)


async def clock_after_a_step_back(store: EmbeddedStore, clock: SteppedClock) -> Mid:
    """What the store has told while the machine's clock was a minute ahead."""
    clock.advance(60)
    told = await store.clock()
    clock.advance(-60)
    return told


async def test_clock_that_was_told_and_stored_nothing_goes_on_after_an_orderly_end(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(store_on(tmp_path, clock)) as store:
        told = await clock_after_a_step_back(store, clock)
    async with opened(store_on(tmp_path, clock)) as store:
        assert await store.clock() > told


async def test_clock_ahead_of_the_machine_goes_on_after_a_crash(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(store_on(tmp_path / "store", clock)) as store:
        told = await clock_after_a_step_back(store, clock)
        await store.remove_expired(1)
        # As it would be found after a crash now.
        shutil.copytree(tmp_path / "store", tmp_path / "crashed")
    async with opened(store_on(tmp_path / "crashed", clock)) as store:
        assert await store.clock() > told
