"""A transport in memory: keeps what is written, is as full as the test says, and fails as uvloop's do."""

from __future__ import annotations

from typing import Any


class MemoryTransport:
    """What comet.connection.Transport asks for. Nothing is read from it by itself: take() does."""

    def __init__(self) -> None:
        # Written and not taken.
        self.unread = b""
        # Above what is unread here: bytes that the peer has not read either.
        self.stuck_bytes = 0
        # How it was ended: in this order, if more than one.
        self.ends: list[str] = []
        # Writes fail from now on, before anybody is told that the connection has ended.
        self.has_failed = False

    def take(self) -> bytes:
        """Read everything, as the peer would."""
        data, self.unread = self.unread, b""
        return data

    def write(self, data: bytes) -> None:
        self._require_alive()
        self.unread += data

    def write_eof(self) -> None:
        self._require_alive()
        self.ends.append("eof")

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")
        self.has_failed = True

    def get_write_buffer_size(self) -> int:
        return self.stuck_bytes

    def get_extra_info(self, name: str) -> Any:
        return None if self.has_failed else ("192.0.2.1", 1234)

    def _require_alive(self) -> None:
        if self.has_failed:
            raise RuntimeError("the handler is closed")
