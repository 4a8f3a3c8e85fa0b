"""A store on a real server, for the conformance suite."""

from __future__ import annotations

from collections.abc import Callable

from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.base import MessageStore
from tests.message.storage.store_suite import Limits, unreadable
from tests.support.faketime import WallClock


class ServerHarness:
    """One backend on a server that it has for itself, and whose clock can be set."""

    def __init__(
        self,
        clock: WallClock,
        *,
        make: Callable[[Limits, Stats], MessageStore],
        empty: Callable[[], None],
        damage: Callable[[Key, Mid], None],
    ) -> None:
        """Begin with an empty server at the present time.

        Args:
            make: a store that is not open yet.
            empty: removes what is stored.
            damage: see Harness.damage().
        """
        self._clock = clock
        self._make = make
        self._damage = damage
        self._stats = Stats()
        self._store: MessageStore | None = None
        self._offset_s = 0.0
        clock.set("+0")
        empty()

    async def open(self, limits: Limits | None = None) -> MessageStore:
        """See Harness.open()."""
        await self._stop()
        self._stats = Stats()
        self._store = self._make(limits or Limits(), self._stats)
        await self._store.start()
        # The store's own search may be queued behind this one.
        await self._store.remove_expired(1)
        return self._store

    async def close(self) -> None:
        """See Harness.close()."""
        await self._stop()
        self._clock.set("+0")

    def advance(self, seconds: float) -> None:
        """See Harness.advance()."""
        self._offset_s += seconds
        self._clock.set(f"{self._offset_s:+.3f}")

    def damage(self, key: Key, mid: Mid) -> None:
        """See Harness.damage()."""
        self._damage(key, mid)

    def left_out(self) -> int:
        """See Harness.left_out()."""
        return unreadable(self._stats)

    async def _stop(self) -> None:
        if self._store is not None:
            await self._store.stop()
