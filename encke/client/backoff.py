"""How long to wait before the next attempt: jittered, exponential, bounded."""

from __future__ import annotations

from collections.abc import Callable

# 2**16 times any base is above every sensible maximum, and still a small number.
_MAX_DOUBLINGS = 16


class Backoff:
    """Delays that double from `base_s` to `max_s`, each shortened by up to a half at random.

    The jitter keeps the subscribers of a node that died from coming back in step.
    """

    def __init__(self, base_s: float, max_s: float, random: Callable[[], float]) -> None:
        """Make a fresh row of delays.

        Args:
            random: a number from 0 to 1, as random.random gives.
        """
        self._base_s = base_s
        self._max_s = max_s
        self._random = random
        self._attempts = 0

    def reset(self) -> None:
        """The last attempt went well: begin again with the shortest delay."""
        self._attempts = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling = min(self._max_s, self._base_s * float(1 << min(self._attempts, _MAX_DOUBLINGS)))
        self._attempts += 1
        return ceiling * (0.5 + 0.5 * self._random())

    def prompt_s(self) -> float:
        """Seconds to wait when the server asked us to come back: shorter, the first time."""
        delay_s = self.next_s()
        return delay_s if self._attempts > 1 else delay_s * self._random()

    def longest_s(self) -> float:
        """Seconds to wait when coming back soon cannot help."""
        return self._max_s * (0.5 + 0.5 * self._random())
