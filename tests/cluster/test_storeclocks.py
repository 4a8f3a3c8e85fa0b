"""What is known of store servers' clocks, and whose counts for a key."""

from __future__ import annotations

from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid, StoreServer
from cluster.storeclocks import StoreClock, StoreClocks
from cluster.storering import StoreRing

NOW = Mid(17_000_000_000_000_000 // STEP * STEP)
AHEAD = Mid(NOW + 5 * TICKS_PER_SECOND)


class Heard:
    """Clocks under a monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ns = 0
        self.clocks = StoreClocks(lambda: self.ns)

    def take(self, **clocks: int) -> None:
        self.clocks.take([StoreServer(name, 1, Mid(clock)) for name, clock in clocks.items()], self.ns)


def key_on(server: str, *others: str) -> Key:
    ring = StoreRing(dict.fromkeys([server, *others], 1))
    return next(key for n in range(1000) if ring.server_of(key := Key(f"k{n}")) == server)


SLOW, FAST = key_on("slow", "fast"), key_on("fast", "slow")


def test_nothing_is_known_before_a_server_has_answered() -> None:
    heard = Heard()
    assert not heard.clocks.is_known
    heard.take(slow=0, fast=0)
    assert not heard.clocks.is_known
    heard.take(slow=NOW, fast=0)
    assert heard.clocks.is_known


def test_answer_about_any_key_counts_while_there_is_one_server() -> None:
    heard = Heard()
    heard.clocks.hear(FAST, NOW, 0)
    assert heard.clocks.now(SLOW) == heard.clocks.lowest() == NOW
    heard.take(only=AHEAD)
    assert heard.clocks.now(SLOW) == heard.clocks.now(FAST) == AHEAD


def test_each_key_has_the_clock_of_its_server() -> None:
    heard = Heard()
    heard.take(slow=NOW, fast=AHEAD)
    assert (heard.clocks.now(SLOW), heard.clocks.now(FAST)) == (NOW, AHEAD)
    heard.ns += 1_000_000_000
    heard.clocks.hear(FAST, Mid(AHEAD + 2 * TICKS_PER_SECOND), heard.ns)
    assert heard.clocks.now(SLOW) == heard.clocks.lowest() == NOW + TICKS_PER_SECOND
    assert heard.clocks.now(FAST) == AHEAD + 2 * TICKS_PER_SECOND


def test_key_of_a_server_that_never_answered_has_the_lowest_clock_of_the_others() -> None:
    heard = Heard()
    heard.take(slow=NOW, fast=0)
    assert heard.clocks.now(FAST) == NOW
    heard.clocks.hear(FAST, AHEAD, 0)
    assert heard.clocks.now(FAST) == AHEAD


def test_what_is_known_of_a_server_stays_when_another_is_added_or_silent() -> None:
    heard = Heard()
    heard.take(slow=NOW)
    heard.take(slow=0, fast=AHEAD)
    assert (heard.clocks.now(SLOW), heard.clocks.now(FAST)) == (NOW, AHEAD)
    heard.take(slow=NOW, fast=0)
    assert heard.clocks.now(FAST) == AHEAD


# -- the clock of one server


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
