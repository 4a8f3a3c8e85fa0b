"""One subscriber's socket: a handshake first, then the transport of a Connection.

What TCP and WebSocket have in common; their bytes are read in tcp.py and
websocket.py. One object for both phases: a second one would cost time and memory.
"""

from __future__ import annotations

from typing import Generic

from comet.codec.protocol import CloseReason
from comet.sockets.door import INPUT_WINDOW_S, Door, Reader
from comet.sockets.transport import SocketTransport, TransportUser
from comet.subscribers.connection import Connection


class SubscriberSocket(TransportUser, Generic[Reader]):
    """Deadline of the handshake, bound of the input rate, and what the transport reports."""

    __slots__ = ("_connection", "_door", "_frames", "_held", "_transport", "_window")

    _transport: SocketTransport

    def __init__(self, door: Door[Reader]) -> None:
        self._door = door
        # None until it has subscribed.
        self._connection: Connection | None = None
        # Input that is incomplete; bounded by what reads it.
        self._held = b""
        # When the window began in which frames are counted, and how many there were.
        # The time is the object that the connection keeps too: no memory of its own.
        self._window = 0.0
        self._frames = 0

    # -- for tcp.py and websocket.py

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

    # -- what its transport tells

    def connection_made(self, transport: SocketTransport) -> None:
        self._transport = transport
        if not self._door.enter(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._connection is None:
            self._shake_hands(data)
        else:
            self._read(self._connection, data)

    def eof_received(self) -> None:
        if self._connection is not None:
            self._connection.close(CloseReason.PEER_CLOSED)

    def connection_lost(self, unread: int) -> None:
        if self._connection is not None:
            self._connection.lost(unread)
        else:
            self._door.shaken(self)
        self._door.leave()

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    # -- for its door, until it has subscribed

    def give_up(self) -> None:
        """End without a word."""
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()
