"""Keeping a key within its limits: when it is trimmed, which messages go, what is remembered of them.

The Redis store does the same in its script (redis/lua.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from cluster.model import Mid
from message.storage.limits import StoreLimits

# A full key is trimmed when it is over a limit by this share of it, not at every save, which
# would cost the embedded store 9 us each (bench/store.py --saves 200000).
TRIM_SLACK = 32


class TrimmedKey(Protocol):
    """What trimming reads and changes of the state that a store keeps of a key."""

    # Stored ones, expired ones that are still there included.
    messages: int
    payload_bytes: int
    # Mid of the newest message, 0 = none.
    stored: Mid
    # Highest mid that was removed unexpired, 0 = none; when the last of these would have expired.
    trimmed: Mid
    trimmed_until: int


def with_slack(limit: int) -> int:
    """Above this a key is trimmed, to the limit itself."""
    return limit + limit // TRIM_SLACK


def most_trimmed(key: TrimmedKey, limits: StoreLimits) -> int:
    """How many of its oldest messages trim() may have to look at."""
    if key.payload_bytes > limits.max_bytes_per_key:
        return key.messages
    return key.messages - limits.max_messages_per_key


def trim(
    key: TrimmedKey, oldest: Iterable[Sequence[int]], limits: StoreLimits, now_s: int
) -> tuple[Mid, int]:
    """Take the oldest messages off a key's state until it is within its limits; the newest stays.

    Args:
        oldest: mid, unix second of the end and payload bytes of each, in the order of mids.
        now_s: unix second; messages that have expired by then go without a mark.

    Returns:
        The mid up to which its messages are to be removed, 0 = none; and how many of them were unexpired.
    """
    max_messages, max_bytes = limits.max_messages_per_key, limits.max_bytes_per_key
    removed_to = unexpired = 0
    for mid, expires_at, payload_bytes in oldest:
        is_within = key.messages <= max_messages and key.payload_bytes <= max_bytes
        if is_within or mid == key.stored:
            break
        key.messages -= 1
        key.payload_bytes -= payload_bytes
        removed_to = mid
        if expires_at > now_s:
            unexpired += 1
            key.trimmed = Mid(mid)
            key.trimmed_until = max(key.trimmed_until, expires_at)
    return Mid(removed_to), unexpired
