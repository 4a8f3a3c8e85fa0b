"""What a store was asked for and has not answered yet: counted, and refused over the limits."""

from __future__ import annotations

from cluster.contracts.message import SaveBatch
from cluster.errors import EnckeError, OverloadedError, UnavailableError
from message.config import StoreLimits
from message.storage.checks import save_refusal


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
            raise UnavailableError("the store is not open")

    def admit_save(self, batch: SaveBatch, payload_bytes: int) -> EnckeError | None:
        """Count a save, until end_write(), or say why it is refused."""
        if not self.is_open:
            return UnavailableError("the store is not open")
        refusal = save_refusal(batch, payload_bytes, self._limits, self.writes, self._payload_bytes)
        if refusal is None:
            self.writes += 1
            self._payload_bytes += payload_bytes
        return refusal

    def admit_change(self) -> None:
        """Count what changes a key and is no save, until end_write().

        Raises:
            UnavailableError, OverloadedError: it is refused, and not counted.
        """
        self.require_open()
        if self.writes >= self._limits.max_queued_saves:
            raise OverloadedError("too many changes wait for the store")
        self.writes += 1

    def end_write(self, payload_bytes: int = 0) -> None:
        """A save or a change is answered."""
        self.writes -= 1
        self._payload_bytes -= payload_bytes

    def admit_read(self) -> None:
        """Count a read, until end_read().

        Raises:
            UnavailableError, OverloadedError: it is refused, and not counted.
        """
        self.require_open()
        if self._reads >= self._limits.max_queued_reads:
            raise OverloadedError("too many reads wait for the store")
        self._reads += 1

    def end_read(self) -> None:
        """It is answered."""
        self._reads -= 1
