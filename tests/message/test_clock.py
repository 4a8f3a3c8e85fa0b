"""The store's clock against every way in which a wall clock misbehaves."""

from __future__ import annotations

from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Mid
from message.storage.clock import HeardClock, StoreTime, to_whole_s

NS = 1_000_000_000
START_S = 1_790_000_000


class Clocks:
    def __init__(self) -> None:
        self.wall = START_S * NS
        self.monotonic = 5 * NS

    def run(self, seconds: float) -> None:
        self.wall += int(seconds * NS)
        self.monotonic += int(seconds * NS)

    def store_time(self, floor: int = 0) -> StoreTime:
        return StoreTime(lambda: self.wall, lambda: self.monotonic, Mid(floor))


def ticks(seconds: float) -> int:
    return int(seconds * TICKS_PER_SECOND)


def test_clock_is_the_wall_clock_in_steps() -> None:
    clocks = Clocks()
    time = clocks.store_time()
    clocks.run(1.000_000_123)

    assert time.mid() == ticks(START_S + 1)
    assert time.mid() % STEP == 0
    assert to_whole_s(time.mid()) == time.wall_s() == START_S + 1


def test_clock_goes_on_with_the_monotonic_one_when_the_wall_clock_steps_back() -> None:
    clocks = Clocks()
    time = clocks.store_time()
    before = time.mid()
    clocks.wall -= 3600 * NS
    clocks.run(10)

    assert time.mid() == before + ticks(10)
    assert time.wall_s() == START_S - 3600 + 10


def test_clock_goes_on_when_the_wall_clock_is_frozen() -> None:
    clocks = Clocks()
    time = clocks.store_time()
    before = time.mid()
    clocks.monotonic += 7 * NS

    assert time.mid() == before + ticks(7)


def test_clock_follows_a_step_ahead_and_does_not_come_back() -> None:
    clocks = Clocks()
    time = clocks.store_time()
    clocks.wall += 1000 * NS
    ahead = time.mid()
    clocks.wall -= 1000 * NS
    clocks.run(1)

    assert ahead == ticks(START_S + 1000)
    assert time.mid() == ahead + ticks(1)


def test_clock_starts_at_the_floor_when_the_wall_clock_is_behind_it() -> None:
    clocks = Clocks()
    floor = ticks(START_S + 50)
    time = clocks.store_time(floor)

    assert time.mid() == floor
    clocks.run(2)
    assert time.mid() == floor + ticks(2)
    clocks.run(100)
    assert time.mid() == floor + ticks(102)


def test_nothing_expires_early() -> None:
    clocks = Clocks()
    clocks.run(0.000_001)

    assert clocks.store_time().expires_at(10) == START_S + 11
    assert Clocks().store_time().expires_at(10) == START_S + 10


# -- the clock of a server, as it is heard


def test_clock_that_was_never_heard_bounds_nothing() -> None:
    clocks = Clocks()
    heard = HeardClock(lambda: clocks.monotonic)
    clocks.run(100)

    assert heard.bound() == 0


def test_bound_runs_a_little_slower_than_time_so_that_it_never_leads_the_server() -> None:
    clocks = Clocks()
    heard = HeardClock(lambda: clocks.monotonic)
    heard.hear(ticks(START_S))
    clocks.run(1000)

    assert ticks(START_S + 998) <= heard.bound() < ticks(START_S + 1000)
    assert heard.bound() % STEP == 0


def test_answer_that_comes_late_or_from_a_clock_that_went_back_does_not_lower_the_bound() -> None:
    clocks = Clocks()
    heard = HeardClock(lambda: clocks.monotonic)
    heard.hear(ticks(START_S))
    clocks.run(10)
    before = heard.bound()

    heard.hear(ticks(START_S + 5))
    heard.hear(ticks(START_S - 3600))

    assert heard.bound() == before
