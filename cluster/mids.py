"""Message ids: 100 ns ticks, multiples of 80, strictly increasing per key.

A multiple of 80 is exact in a JavaScript number and prints exactly there.
This file only does the arithmetic. The store settles the mids of stored
messages in its inserting transaction; comet mints those of messages that are
not stored, above the store's clock (storeclocks.py).
"""

from __future__ import annotations

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
