"""cluster/storeclocks.py: whose clock counts for a key."""

from __future__ import annotations

from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid, StoreServer
from cluster.storeclocks import StoreClocks
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
