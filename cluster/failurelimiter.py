"""Makes addresses wait that show too many bad tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class FailureLimiter:
    """One token bucket per address: who fails too often has to wait.

    Keeps only addresses that failed lately, at most `max_addresses`: the one
    that failed longest ago is forgotten first, so a flood from very many
    addresses costs memory for that many and no more.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float], max_addresses: int = 10_000) -> None:
        """Allow per_minute failures at once and refill as many a minute; 0 = no limit."""
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._max_addresses = max_addresses
        # Addresses that may fail as they like, the one that was trusted longest ago first.
        self._trusted: OrderedDict[str, None] = OrderedDict()
        # Address → (failures left, when that was true). Least recently failed first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until the address may try again; 0 = now."""
        if address not in self._buckets or address in self._trusted:
            return 0.0
        left = self._left(address)
        return 0.0 if left >= 1 else (1 - left) * 60 / self._per_minute

    def add_failure(self, address: str) -> None:
        """Count one failure of an address."""
        if not self._per_minute:
            return
        self._buckets[address] = (max(self._left(address) - 1, 0.0), self._monotonic())
        self._buckets.move_to_end(address)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)

    def trust(self, address: str) -> None:
        """Never make an address wait any more.

        For one that has shown a good token: a stranger behind the same proxy must not lock it out.
        """
        if address in self._trusted:
            return
        self._trusted[address] = None
        if len(self._trusted) > self._max_addresses:
            self._trusted.popitem(last=False)

    def is_trusted(self, address: str) -> bool:
        """Whether it never waits. One among too many is forgotten."""
        return address in self._trusted

    def _left(self, address: str) -> float:
        full = float(self._per_minute)
        left, at = self._buckets.get(address, (full, 0.0))
        return min(full, left + (self._monotonic() - at) * full / 60)
