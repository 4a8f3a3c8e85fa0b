"""Tells messages that are as they were saved from damaged ones, which no answer holds.

A bit that flips in a payload changes nothing that SQLite could notice: its pages
have no checksums. So each message has one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from zlib import crc32

from cluster.model import Key, Mid
from message.storage.counters import StoreCounters
from message.storage.rules import read_payload

log = logging.getLogger(__name__)

# Messages that are remembered as told of: about 200 bytes each.
MAX_TOLD = 1000


def checksum(key_id: int, mid: Mid, payload: bytes) -> int:
    """The checksum that is stored with a message.

    Whose it is and where it stands is in the start value, for they come from an
    index: a damaged one must not give a message to another key. Of the
    value 32 bits are used, so the upper half of the mid is folded into the lower.
    """
    return crc32(payload, key_id ^ mid ^ mid >> 32)


def intact_payload(key_id: int, mid: Mid, stored: bytes, crc: int | None) -> bytes | None:
    """A payload as it was saved, or None.

    Args:
        crc: what checksum() gave; None for a message that was saved before there were
            checksums, of which only that it is JSON can be said.
    """
    if crc is None:
        return read_payload(stored)
    return stored if checksum(key_id, mid, stored) == crc else None


class DamageReport:
    """Counts what was left out of answers, and tells once of each message. On the event loop."""

    def __init__(self, counters: StoreCounters) -> None:
        self._counters = counters
        # When it is full it begins anew: a line too many, rather than one too few.
        self._told: set[tuple[Key, Mid]] = set()

    def add(self, key: Key, mids: Iterable[Mid]) -> None:
        """Messages of a key were left out of an answer, perhaps not for the first time."""
        for mid in mids:
            self._counters.unreadable.value += 1
            if (key, mid) in self._told:
                continue
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told.add((key, mid))
            log.warning("left out a stored message that is damaged: key=%s mid=%d", key, mid)
