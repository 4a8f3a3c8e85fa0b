"""What the tests of the suite stand on: the harness of a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.base import MessageStore


@dataclass(frozen=True)
class Limits:
    """Settings that the tests change, under the names that all stores share."""

    max_messages_per_key: int = 1000
    max_bytes_per_key: int = 4 * 1024 * 1024
    max_devices_per_key: int = 16
    device_memory_days: int = 30
    max_id_ttl_s: int = 86_400


class Harness(Protocol):
    """One backend under test, with data of its own."""

    async def open(self, limits: Limits | None = None) -> MessageStore:
        """Open the store; one that is open is stopped first, so a second call is a restart."""
        ...

    async def close(self) -> None:
        """Stop the store. What is stored may stay until the next harness begins."""
        ...

    def advance(self, seconds: float) -> None:
        """Step the store's wall clock; negative = back."""
        ...

    def damage(self, key: Key, mid: Mid) -> None:
        """Put what is no message in the place of one, behind the back of the open store."""
        ...

    def left_out(self) -> int:
        """How many stored values the open store has left out of answers."""
        ...


def unreadable(stats: Stats) -> int:
    """What a store has counted as left out."""
    (family,) = [one for one in stats.snapshot() if one.name == "store_unreadable_total"]
    count = family.readings[""]
    assert isinstance(count, int)
    return count


def text(content: str) -> bytes:
    """A JSON text of ASCII characters."""
    return f'"{content}"'.encode()


async def remove_all_expired(store: MessageStore, limit: int = 100) -> int:
    """Remove in batches until nothing is left; how many rows."""
    total = 0
    while removed := await store.remove_expired(limit):
        total += removed
        if removed < limit:
            break
    return total


class Ground:
    """A backend's class adds the fixture `harness`."""

    @pytest.fixture
    async def store(self, harness: Harness) -> AsyncIterator[MessageStore]:
        yield await harness.open()
        await harness.close()

    @pytest.fixture
    async def opened(self, harness: Harness) -> AsyncIterator[Harness]:
        """For tests that choose limits, or restart."""
        yield harness
        await harness.close()
