"""The arithmetic of mids, and the bound of the store's clock, with clocks of the tests' own."""

from __future__ import annotations

import itertools
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from cluster.mids import (
    MAX_SENT_LEAD,
    STEP,
    TICKS_PER_SECOND,
    StoreClock,
    from_unix_ns,
    settle,
)
from cluster.model import Mid

YEAR_2020, YEAR_2200 = 1_577_836_800, 7_258_118_400

mids = st.integers(YEAR_2020 * TICKS_PER_SECOND // STEP, YEAR_2200 * TICKS_PER_SECOND // STEP).map(
    lambda steps: Mid(steps * STEP)
)
# Near the clock, where the rules meet, and anywhere.
leads = st.integers(-2 * TICKS_PER_SECOND, 2 * TICKS_PER_SECOND).map(lambda ticks: ticks - ticks % STEP)


def printed_by_javascript(number: float) -> int:
    """What a browser shows for it: the shortest digits that mean this double, as in Python."""
    return int(Decimal(repr(number)))


@given(mids)
@example(from_unix_ns(YEAR_2200 * 10**9))
def test_mid_is_exact_in_a_javascript_number_and_prints_exactly(mid: Mid) -> None:
    assert float(mid) == mid
    assert printed_by_javascript(float(mid)) == mid


def test_neighbouring_multiple_of_16_does_not_print_exactly() -> None:
    # Why the step is 80 and not 16.
    first = YEAR_2020 * TICKS_PER_SECOND * 4
    assert any(printed_by_javascript(float(first + 16 * n)) != first + 16 * n for n in range(5))


@given(st.integers(YEAR_2020 * 10**9, YEAR_2200 * 10**9))
def test_moment_is_rounded_down_by_less_than_a_step(ns: int) -> None:
    mid = from_unix_ns(ns)
    assert mid % STEP == 0
    assert 0 <= ns // 100 - mid < STEP


@given(mids, leads, leads)
def test_settled_mid_is_a_multiple_of_the_step_above_everything_that_counts(
    clock: Mid, last_lead: int, sent_lead: int
) -> None:
    last, sent = Mid(clock + last_lead), Mid(clock + sent_lead)
    mid = settle(clock, last, sent)
    assert mid % STEP == 0
    assert mid >= clock
    assert mid >= last + STEP
    if sent_lead <= MAX_SENT_LEAD:
        assert mid >= sent + STEP


@given(mids, leads, leads)
def test_settled_mid_is_the_lowest_that_is_allowed(clock: Mid, last_lead: int, sent_lead: int) -> None:
    last, sent = Mid(clock + last_lead), Mid(clock + sent_lead)
    counted = sent if sent_lead <= MAX_SENT_LEAD else Mid(0)
    assert settle(clock, last, sent) == max(clock, last + STEP, counted + STEP)


@given(mids, st.lists(leads, max_size=20))
def test_mids_of_a_key_strictly_increase_whatever_the_clock_does(start: Mid, steps: list[int]) -> None:
    settled = [settle(start, Mid(0), Mid(0))]
    for step in steps:
        settled.append(settle(Mid(start + step), settled[-1], Mid(0)))
    assert all(later >= earlier + STEP for earlier, later in itertools.pairwise(settled))


def test_what_was_sent_more_than_a_second_ahead_of_the_clock_is_ignored() -> None:
    clock = Mid(1000 * TICKS_PER_SECOND)
    bound = Mid(clock + MAX_SENT_LEAD)
    assert settle(clock, Mid(0), bound) == bound + STEP
    assert settle(clock, Mid(0), Mid(bound + STEP)) == clock
    assert settle(clock, Mid(clock + 160), Mid(bound + STEP)) == clock + 160 + STEP


class Monotonic:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def __call__(self) -> int:
        return self.ns

    def pass_ms(self, ms: int) -> int:
        """Let time pass; what the clock shows then."""
        self.ns += ms * 1_000_000
        return self.ns


MS = TICKS_PER_SECOND // 1000
NOON = Mid(1_000_000 * TICKS_PER_SECOND)


def test_clock_is_unknown_until_it_is_heard_of() -> None:
    monotonic = Monotonic()
    clock = StoreClock(monotonic)
    assert not clock.is_known
    clock.hear(NOON, monotonic.ns)
    assert clock.is_known
    assert clock.now() == NOON


def test_bound_advances_with_the_monotonic_clock_in_whole_steps() -> None:
    monotonic = Monotonic()
    clock = StoreClock(monotonic)
    clock.hear(NOON, monotonic.ns)
    monotonic.pass_ms(250)
    assert clock.now() == NOON + 250 * MS
    monotonic.ns += 4000
    # 40 ticks later: half a step.
    assert clock.now() == NOON + 250 * MS


def test_later_reading_takes_the_bound_ahead() -> None:
    monotonic = Monotonic()
    clock = StoreClock(monotonic)
    clock.hear(NOON, monotonic.ns)
    asked = monotonic.pass_ms(10)
    clock.hear(Mid(NOON + 3_600_000 * MS), asked)
    assert clock.now() == NOON + 3_600_000 * MS


def test_answer_that_was_slow_does_not_take_the_bound_back() -> None:
    monotonic = Monotonic()
    clock = StoreClock(monotonic)
    asked = monotonic.ns
    # The store read its clock 1 ms after the question; the answer took half a second.
    reading = Mid(NOON + MS)
    clock.hear(NOON, asked)
    monotonic.pass_ms(500)
    before = clock.now()
    clock.hear(reading, asked)
    assert clock.now() == before == NOON + 500 * MS


def test_clock_that_was_set_back_takes_the_bound_back() -> None:
    monotonic = Monotonic()
    clock = StoreClock(monotonic)
    clock.hear(NOON, monotonic.ns)
    asked = monotonic.pass_ms(1000)
    monotonic.pass_ms(2)
    # Below what the bound was when we asked: no delay explains that.
    clock.hear(Mid(NOON - 3_600_000 * MS), asked)
    assert clock.now() == NOON - 3_600_000 * MS
