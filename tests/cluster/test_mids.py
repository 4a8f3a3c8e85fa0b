"""The arithmetic of mids."""

from __future__ import annotations

import itertools
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from cluster.mids import (
    MAX_SENT_LEAD,
    STEP,
    TICKS_PER_SECOND,
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
