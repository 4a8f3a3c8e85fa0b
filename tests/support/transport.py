"""A transport in memory: keeps what is written, is as full as the test says, and fails when told to."""

from __future__ import annotations


class MemoryTransport:
    """What comet.connection.Transport asks for. Nothing is read from it by itself: take() does."""

    def __init__(self, peer: str = "192.0.2.1:1234") -> None:
        self._peer = peer
        # Written and not taken.
        self.unread = b""
        # What the connection is told; set by the test, whatever is unread above.
        self.unread_bytes = 0
        # How it was ended: in this order, if more than one.
        self.ends: list[str] = []
        # Writes fail from now on, before anybody is told that the connection has ended.
        self.has_failed = False

    def take(self) -> bytes:
        """Read everything, as the peer would."""
        data, self.unread = self.unread, b""
        return data

    def write(self, data: bytes) -> bool:
        if self.has_failed:
            return False
        self.unread += data
        return True

    def write_eof(self) -> None:
        self.ends.append("eof")

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")
        self.has_failed = True

    @property
    def peer(self) -> str:
        return "" if self.has_failed else self._peer
