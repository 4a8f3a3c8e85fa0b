"""Numbers and small rules that every store keeps, whatever its backend."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b

from cluster.canonical import canonical_json

# Ids are remembered for this long after the deadline of the save: a repeat that was
# sent just before the deadline and waited in a queue still finds its first.
ID_GRACE_S = 60

# A fenced incarnation is remembered for this long: far longer than any node can believe
# in a registration that has ended.
FENCE_S = 86_400

MAX_DEVICE_BYTES = 64

SECONDS_PER_DAY = 86_400

# Its digest(), 16 bytes, tells a repeat from another payload under the same id. The digest is stored.
# No function of ours around it: nearly every save has an id.
payload_hash = partial(blake2b, digest_size=16)


def last_silent_day(now_s: int, device_memory_days: int) -> int:
    """A device that has acknowledged nothing after this day is forgotten. Days since 1970, in UTC."""
    return now_s // SECONDS_PER_DAY - device_memory_days - 1


def read_payload(stored: bytes) -> bytes | None:
    """A payload from a stored value that nobody vouches for, in canonical form; None if it is not JSON."""
    try:
        return canonical_json(stored)
    except (ValueError, RecursionError):
        return None
