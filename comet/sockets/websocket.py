"""WebSocket subscribers: a socket's bytes in, calls of one Connection out (docs/subscriber-protocol.md)."""

from __future__ import annotations

from comet.codec.frameinput import MAX_MESSAGE_BYTES, is_heartbeat, read_events
from comet.codec.frames import Close, CloseCode, FrameDecoder, FrameFailure, close_frame
from comet.codec.handshake import Rejection
from comet.codec.protocol import CloseReason, Refusal
from comet.codec.usual import Handshake, HandshakeReader
from comet.sockets.door import Door
from comet.sockets.subscriber import SubscriberSocket
from comet.subscribers.connection import Connection

_REASONS = {
    CloseCode.PROTOCOL_ERROR: CloseReason.PROTOCOL_ERROR,
    CloseCode.INVALID_TEXT: CloseReason.BAD_UTF8,
    CloseCode.TOO_BIG: CloseReason.MESSAGE_TOO_BIG,
}


class WebSocketSubscriber(SubscriberSocket[HandshakeReader]):
    """A WebSocket, from its HTTP request on."""

    __slots__ = ("_decoder",)

    def __init__(self, door: Door[HandshakeReader]) -> None:
        super().__init__(door)
        # There only while a frame or message is incomplete (0.3 KB).
        self._decoder: FrameDecoder | None = None

    def eof_received(self) -> None:
        # Without a close frame: something between us has ended it.
        if self._connection is not None:
            self._connection.close(CloseReason.PEER_LOST)

    def _shake_hands(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        asked = self._door.reader.read(held)
        if asked is None:
            self._held = held
            return
        self._held = b""
        self._door.shaken(self)
        if isinstance(asked, Rejection):
            self._door.reception.turn_away(CloseReason.PROTOCOL_ERROR)
            self._door.see_out(self._transport, asked.response)
            return
        self._subscribe(asked)
        if self._connection is not None and len(held) > asked.size:
            self._read(self._connection, held[asked.size :])

    def _subscribe(self, asked: Handshake) -> None:
        """Errors come as a frame after the 101: browsers hide HTTP errors from scripts."""
        door = self._door
        wire = door.wires[asked.version]
        if asked.subscribe is None:
            door.reception.turn_away(CloseReason.PARAMETER)
            admitted: Connection | Refusal = Refusal.PARAMETER
        else:
            admitted = door.reception.subscribe(asked.subscribe, self._transport, wire, asked.response)
        if isinstance(admitted, Connection):
            self._connection = admitted
        else:
            words = wire.line(admitted.line) + wire.farewell(admitted.reason)
            # Without words not even the 101, which would only keep the peer here.
            door.see_out(self._transport, asked.response + words if words else b"")

    def _read(self, connection: Connection, data: bytes) -> None:
        if is_heartbeat(data) and self._decoder is None and connection.closed_for is None:
            # Nearly all input of live subscribers.
            connection.heartbeat(self._count(1))
            return
        decoder = self._decoder or FrameDecoder(MAX_MESSAGE_BYTES)
        events = decoder.feed(data)
        self._decoder = None if decoder.is_idle else decoder
        # A part of a frame counts as one: a drip costs as much.
        now = self._count(len(events) or 1)
        if connection.closed_for is not None:
            # We have said goodbye; only the answer to it matters.
            if events and isinstance(events[-1], Close | FrameFailure):
                self._transport.close()
            return
        heard = read_events(events, connection.wire.version)
        if heard.heartbeats:
            connection.heartbeat(now, heard.heartbeats)
        if heard.pongs:
            connection.answer(heard.pongs)
        if heard.acknowledged is not None:
            connection.acknowledge(heard.acknowledged)
        if heard.ending is not None:
            self._end(connection, heard.ending)

    def _end(self, connection: Connection, ending: Close | FrameFailure) -> None:
        if isinstance(ending, Close):
            if connection.closed_for is None:
                connection.write(close_frame(ending.code))
            connection.close(CloseReason.PEER_CLOSED)
            return
        connection.close(_REASONS[ending.code])
        if not self._transport.is_closing:
            # Its answer could not be read any more: let it see the end at once.
            self._transport.write_eof()
