"""Raw TCP subscribers: bytes of one socket in, calls of one Connection out (docs/subscriber-protocol.md)."""

from __future__ import annotations

from comet.connection import Connection
from comet.protocol import ClientVersion, CloseReason, Refusal, TcpWire
from comet.resp import Command, read_command, read_input, read_subscribe
from comet.subscriber import SubscriberSocket


def tcp_wires() -> tuple[TcpWire, ...]:
    """A wire for each client version."""
    return tuple(TcpWire(version) for version in ClientVersion)


class TcpSubscriber(SubscriberSocket):
    """A raw TCP socket."""

    __slots__ = ()

    def _shake_hands(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        command = read_command(held)
        if command is None:
            self._held = held
            return
        self._held = b""
        door = self._door
        door.wheel.remove(self)
        # Not isinstance() of the enumerations Fault and Refusal: it asks their metaclass, 0.3 us.
        subscribe = read_subscribe(command.arguments) if isinstance(command, Command) else None
        if subscribe is None or not isinstance(command, Command):
            door.reception.turn_away(CloseReason.PARAMETER)
            door.see_out(self._transport, Refusal.PARAMETER.line)
            return
        wire = door.wires[subscribe.version]
        admitted = door.reception.subscribe(subscribe, self._transport, wire)
        if not isinstance(admitted, Connection):
            door.see_out(self._transport, wire.line(admitted.line) + wire.farewell(admitted.reason))
            return
        self._begin(admitted)
        if len(held) > command.size:
            self._read(admitted, held[command.size :])

    def _read(self, connection: Connection, data: bytes) -> None:
        if connection.closed_for is not None:
            return
        if data == b"h":
            # Nearly all input of live subscribers.
            connection.heartbeat(self._count(1))
            return
        heard = read_input(self._held + data, connection.wire.version)
        self._held = heard.rest
        now = self._count(heard.frames)
        if heard.heartbeats:
            connection.heartbeat(now, heard.heartbeats)
        if heard.acknowledged is not None:
            connection.acknowledge(heard.acknowledged)
        if heard.is_broken:
            connection.close(CloseReason.PROTOCOL_ERROR)
