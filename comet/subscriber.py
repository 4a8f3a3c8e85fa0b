"""One subscriber's socket: a handshake first, then the transport of a Connection.

What TCP and WebSocket have in common; their bytes are read in tcp.py and
websocket.py. One object for both phases, because uvloop stops and starts
reading to change the protocol of a transport: two system calls more per
subscription.
"""

from __future__ import annotations

import asyncio

from comet.connection import Connection
from comet.door import INPUT_WINDOW_S, Door
from comet.protocol import CloseReason


class SubscriberSocket(asyncio.Protocol):
    """Deadline of the handshake, bound of the input rate, and what the transport reports."""

    __slots__ = ("_connection", "_deadline", "_door", "_frames", "_held", "_transport", "_window", "slot")

    _transport: asyncio.Transport

    def __init__(self, door: Door) -> None:
        self._door = door
        # None until it has subscribed.
        self._connection: Connection | None = None
        # Input that is incomplete; bounded by what reads it.
        self._held = b""
        # Loop time by which the handshake must be complete, however it drips.
        self._deadline = 0.0
        # When the window began in which frames are counted, and how many there were.
        # The time is the object that the connection keeps too: no memory of its own.
        self._window = 0.0
        self._frames = 0
        # Where the timer wheel keeps the handshake.
        self.slot = -1

    # -- for tcp.py and websocket.py

    def _begin(self, connection: Connection) -> None:
        """It has subscribed."""
        self._connection = connection
        # No float of its own any more: 32 bytes (bench/connections.py).
        self._deadline = 0.0

    def _shake_hands(self, data: bytes) -> None:
        """Read a part of the handshake."""
        raise NotImplementedError

    def _read(self, connection: Connection, data: bytes) -> None:
        """Read what a connection has sent."""
        raise NotImplementedError

    def _count(self, frames: int) -> float:
        """Count input against the limit; return the loop time now."""
        now = self._door.now()
        if now - self._window >= INPUT_WINDOW_S:
            self._window = now
            self._frames = 0
        self._frames += frames
        if self._frames > self._door.max_frames_per_s:
            self._frames = 0
            self._door.stop_reading_for_a_while(self._transport)
        return now

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        door = self._door
        if not door.enter():
            self._transport.abort()
            return
        self._deadline = door.now() + door.handshake_s
        door.wheel.add(self, self._deadline)

    def data_received(self, data: bytes) -> None:
        if self._connection is None:
            self._shake_hands(data)
        else:
            self._read(self._connection, data)

    def eof_received(self) -> None:
        # asyncio closes the transport after this.
        if self._connection is not None:
            self._connection.close(CloseReason.PEER_CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._connection.lost()
        else:
            self._door.wheel.remove(self)
        self._door.leave()

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    # -- an item of the timer wheel, until it has subscribed

    def next_deadline(self, now: float) -> float | None:
        """End a handshake that takes too long, without a word."""
        if now < self._deadline:
            return self._deadline
        self._door.reception.turn_away(CloseReason.HANDSHAKE_TIMEOUT)
        self._transport.close()
        return None

    def hurry(self, deadline: float) -> None:
        """Give the handshake less time: the node is draining."""
        self._deadline = min(self._deadline, deadline)
        self._door.wheel.move(self, self._deadline)

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()
