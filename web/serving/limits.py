"""What bounds the memory of a web node: bytes in bodies."""

from __future__ import annotations

from cluster.errors import UnavailableError


class ByteBudget:
    """Bytes of request bodies that are held at a time, all connections together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes taken and not given back."""
        return self._held

    def take(self, n: int) -> None:
        """Count n more bytes.

        Raises:
            UnavailableError: over the limit; nothing was counted.
        """
        if self._held + n > self._limit:
            raise UnavailableError("too many bytes of requests are held")
        self._held += n

    def give_back(self, n: int) -> None:
        """Count n bytes less."""
        self._held -= n
