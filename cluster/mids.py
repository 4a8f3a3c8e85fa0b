"""Message ids: 100 ns ticks, multiples of 80, strictly increasing per key.

A multiple of 80 is exact in a JavaScript number and prints exactly there.
This file only does the arithmetic. The store settles the mids of stored
messages in its inserting transaction; comet mints those of messages that are
not stored, above the store's clock (StoreClock).
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.model import Mid

# Distance between neighbouring mids of one key: 8 us.
STEP = 80
TICKS_PER_SECOND = 10_000_000
MAX_MID = 2**63 - 1

# `sent` further ahead of the store's clock than this is ignored (a broken
# clock on a comet node must not push the store's mids into the future).
MAX_SENT_LEAD = TICKS_PER_SECOND


def from_unix_ns(ns: int) -> Mid:
    """Turn Unix nanoseconds into the mid of that moment (rounded down to STEP)."""
    ticks = ns // 100
    return Mid(ticks - ticks % STEP)


def settle(clock: Mid, last: Mid, sent: Mid) -> Mid:
    """Choose the mid of the next stored message of a key.

    Args:
        clock: the store's clock, a multiple of STEP.
        last: highest mid settled for this key so far (or the floor).
        sent: highest mid that the key's channel has sent, 0 if unknown;
            ignored when it is more than MAX_SENT_LEAD ahead of the clock.
    """
    lower = last if sent > clock + MAX_SENT_LEAD or last > sent else sent
    return clock if clock >= lower + STEP else Mid(lower + STEP)


class StoreClock:
    """Lower bound of the store's clock, kept by a node that only hears of it.

    Every answer of a message node carries its store's clock; until the next
    one the bound advances with the local monotonic clock, so a wrong wall
    clock of this node does not enter.
    """

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._heard: Mid = Mid(0)
        self._heard_at_ns = monotonic_ns()

    @property
    def is_known(self) -> bool:
        """Whether any answer has arrived yet; before that now() means nothing."""
        return self._heard > 0

    def hear(self, clock: Mid, asked_at_ns: int) -> None:
        """Take the store's clock from an answer that has just arrived.

        An answer that was slow (a commit that took long) does not take the
        bound back: below a mid that was sent, a message would be taken for one
        that its subscriber has seen. A clock that has been set back does.

        Args:
            asked_at_ns: monotonic time of the question; the store read its clock after that.
        """
        if clock == self._heard and asked_at_ns <= self._heard_at_ns:
            # Of the same commit, as most answers are when many wait.
            return
        heard_at_ns, now_ns = self._heard_at_ns, self._monotonic_ns()
        bound_when_asked = self._heard + (asked_at_ns - heard_at_ns) // 100
        # What now() would say, without asking for the time once more.
        ticks = self._heard + (now_ns - heard_at_ns) // 100
        if bound_when_asked <= clock < ticks - ticks % STEP:
            return
        self._heard = clock
        self._heard_at_ns = now_ns

    def now(self) -> Mid:
        """The bound at this moment, a multiple of STEP."""
        ticks = self._heard + (self._monotonic_ns() - self._heard_at_ns) // 100
        # Not Mid(...): every push and subscription comes here, and it is a call in Python, 0.1 us.
        return ticks - ticks % STEP  # type: ignore[return-value]
