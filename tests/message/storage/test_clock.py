"""The clock of a store's server, as it is heard."""

from __future__ import annotations

from cluster.mids import STEP, TICKS_PER_SECOND
from message.storage.clock import HeardClock

NS = 1_000_000_000
START_S = 1_790_000_000


class Monotonic:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.ns = 5 * NS

    def __call__(self) -> int:
        return self.ns

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.ns += int(seconds * NS)


def ticks(seconds: float) -> int:
    return int(seconds * TICKS_PER_SECOND)


def test_clock_that_was_never_heard_bounds_nothing() -> None:
    monotonic = Monotonic()
    heard = HeardClock(monotonic)
    monotonic.run(100)

    assert heard.bound() == 0


def test_bound_runs_a_little_slower_than_time_so_that_it_never_leads_the_server() -> None:
    monotonic = Monotonic()
    heard = HeardClock(monotonic)
    heard.hear(ticks(START_S))
    monotonic.run(1000)

    assert ticks(START_S + 998) <= heard.bound() < ticks(START_S + 1000)
    assert heard.bound() % STEP == 0


def test_answer_that_comes_late_or_from_a_clock_that_went_back_does_not_lower_the_bound() -> None:
    monotonic = Monotonic()
    heard = HeardClock(monotonic)
    heard.hear(ticks(START_S))
    monotonic.run(10)
    before = heard.bound()

    heard.hear(ticks(START_S + 5))
    heard.hear(ticks(START_S - 3600))

    assert heard.bound() == before
