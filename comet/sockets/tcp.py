"""Raw TCP subscribers: bytes of one socket in, calls of one Connection out (docs/subscriber-protocol.md)."""

from __future__ import annotations

from comet.codec.protocol import CloseReason, Refusal, Subscribe
from comet.codec.resp import Command, read_command, read_input, read_subscribe
from comet.codec.usual import SubscribeReader
from comet.sockets.subscriber import SubscriberSocket
from comet.subscribers.connection import Connection


class TcpSubscriber(SubscriberSocket[SubscribeReader]):
    """A raw TCP socket."""

    __slots__ = ()

    def _shake_hands(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        subscribe = self._door.reader.read(held)
        if subscribe is not None:
            self._subscribe(subscribe)
            return
        command = read_command(held)
        if command is None:
            self._held = held
            return
        # Not isinstance() of the enumeration Fault: it asks its metaclass, 0.3 us.
        if isinstance(command, Command):
            self._subscribe(read_subscribe(command.arguments))
            if self._connection is not None and len(held) > command.size:
                self._read(self._connection, held[command.size :])
        else:
            self._subscribe(None)

    def _subscribe(self, subscribe: Subscribe | None) -> None:
        """Become what was asked for, or say why not; None: something that cannot be understood."""
        self._held = b""
        door = self._door
        door.shaken(self)
        if subscribe is None:
            door.reception.turn_away(CloseReason.PARAMETER)
            door.see_out(self._transport, Refusal.PARAMETER.line)
            return
        wire = door.wires[subscribe.version]
        admitted = door.reception.subscribe(subscribe, self._transport, wire)
        # Not of Refusal: see above.
        if isinstance(admitted, Connection):
            self._connection = admitted
        else:
            door.see_out(self._transport, wire.line(admitted.line) + wire.farewell(admitted.reason))

    def _read(self, connection: Connection, data: bytes) -> None:
        if connection.closed_for is not None:
            return
        if data == b"h":
            # Nearly all input of live subscribers.
            connection.heartbeat(self._count(1))
            return
        heard = read_input(self._held + data, connection.wire.version)
        self._held = heard.rest
        # A part of an acknowledgement counts as one: a drip costs as much.
        now = self._count(heard.frames or 1)
        if heard.heartbeats:
            connection.heartbeat(now, heard.heartbeats)
        if heard.acknowledged is not None:
            connection.acknowledge(heard.acknowledged)
        if heard.is_broken:
            connection.close(CloseReason.PROTOCOL_ERROR)
