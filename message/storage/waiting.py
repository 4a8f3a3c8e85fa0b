"""What a store was asked for and has not answered yet: counted, and refused over the limits."""

from __future__ import annotations

from cluster.contracts.message import SaveBatch
from cluster.errors import EnckeError, OverloadedError
from message.storage.checks import not_open, save_refusal
from message.storage.limits import StoreLimits


class Waiting:
    """Counts of one store. Belongs to its event loop."""

    def __init__(self, limits: StoreLimits) -> None:
        """Refuse everything until it is open."""
        self._limits = limits
        self.is_open = False
        # Saves and changes together: they wait for the same connections.
        self.writes = 0
        self._payload_bytes = 0
        self._reads = 0

    def require_open(self) -> None:
        """Go on only when the store is open.

        Raises:
            UnavailableError: it is not.
        """
        if not self.is_open:
            raise not_open()

    def admit_save(self, batch: SaveBatch, payload_bytes: int) -> EnckeError | None:
        """Count a save, until end_writes(), or say why it is refused."""
        if not self.is_open:
            return not_open()
        refusal = save_refusal(batch, payload_bytes, self._limits, self.writes, self._payload_bytes)
        if refusal is None:
            self.writes += 1
            self._payload_bytes += payload_bytes
        return refusal

    def admit_change(self) -> None:
        """Count what changes a key and is no save, until end_writes().

        Raises:
            UnavailableError, OverloadedError: it is refused, and not counted.
        """
        self.require_open()
        if self.writes >= self._limits.max_queued_saves:
            raise OverloadedError("too many changes wait for the store")
        self.writes += 1

    def add_last_change(self) -> None:
        """Count what a store that is not open any more changes itself, until end_writes()."""
        self.writes += 1

    def end_writes(self, count: int, payload_bytes: int = 0) -> None:
        """Saves and changes are answered.

        Args:
            payload_bytes: of the saves among them.
        """
        self.writes -= count
        self._payload_bytes -= payload_bytes

    def admit_read(self) -> None:
        """Count a read, until end_reads().

        Raises:
            UnavailableError, OverloadedError: it is refused, and not counted.
        """
        self.require_open()
        if self._reads >= self._limits.max_queued_reads:
            raise OverloadedError("too many reads wait for the store")
        self._reads += 1

    def end_reads(self, count: int) -> None:
        """Reads are answered."""
        self._reads -= count
