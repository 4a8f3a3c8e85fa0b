"""Who of a key's connections gets a message: one, many, slow ones, those that still catch up."""

from __future__ import annotations

import pytest

from cluster.model import Key, Mid
from cluster.stats import Stats
from comet.codec.protocol import ClientVersion, CloseReason
from comet.codec.wires import TcpWire, WebSocketWire
from comet.metrics import CometMetrics
from comet.subscribers.catchup import CatchUp
from comet.subscribers.channel import Channel
from comet.subscribers.connection import Connection
from comet.subscribers.outgoing import Outgoing
from tests.comet.parts import Context, make_connection
from tests.support.transport import MemoryTransport

OLD, ONE, TWO = (TcpWire(version) for version in ClientVersion)
DOCUMENT = b'{"msg":[1],"mid":%d,"gid":0}'


class Room:
    """A channel with connections."""

    def __init__(self, *wires: TcpWire | WebSocketWire) -> None:
        self.context = Context(unread_limit_bytes=1000)
        pairs = [make_connection(self.context, wire=wire) for wire in wires]
        self.connections: list[Connection] = [connection for connection, _ in pairs]
        self.transports: list[MemoryTransport] = [transport for _, transport in pairs]
        self.channel = Channel(Key("bob"), Mid(1000))
        for connection in self.connections:
            self.channel.add(connection)
        self.context.detach = self._detach

    def _detach(self, connection: Connection) -> None:
        if connection.channel is not None:
            connection.channel.remove(connection)

    def deliver(self, mid: int) -> int:
        return self.channel.deliver(Outgoing(Mid(mid), b"[1]", is_stored=True))

    def taken(self) -> list[bytes]:
        """What each has got since the last call."""
        return [transport.take() for transport in self.transports]


def frame(mid: int) -> bytes:
    document = DOCUMENT % mid
    return b"$%d\r\n%b\r\n" % (len(document), document)


def test_each_connection_gets_the_message_in_its_own_shape_and_frame() -> None:
    room = Room(TWO, OLD, WebSocketWire(ClientVersion.ONE), TWO)
    assert room.deliver(1080) == 4
    two, old, websocket, other = room.taken()
    assert two == other == frame(1080)
    assert old == b'$32\r\n{"msg":"[1]","mid":1080,"gid":0}\r\n'
    assert websocket == b"\x81\x1e" + DOCUMENT % 1080
    assert room.channel.cursor == 1080


def test_slow_consumer_is_aborted_and_the_others_of_the_key_still_receive() -> None:
    room = Room(TWO, TWO, TWO)
    room.connections[1].pause()
    room.transports[1].unread_bytes = 1001
    assert room.deliver(1080) == 2
    assert room.taken() == [frame(1080), b"", frame(1080)]
    assert room.transports[1].ends == ["abort"]
    assert room.context.closes == [CloseReason.SLOW_CONSUMER]
    assert room.channel.connections() == [room.connections[0], room.connections[2]]
    assert room.deliver(1160) == 2


def test_all_may_be_slow_at_once() -> None:
    room = Room(TWO, TWO, TWO)
    for connection, transport in zip(room.connections, room.transports, strict=True):
        connection.pause()
        transport.unread_bytes = 1001
    assert room.deliver(1080) == 0
    assert len(room.channel) == 0
    assert room.context.dropped == {CloseReason.SLOW_CONSUMER: 3}


def test_only_connection_may_be_slow() -> None:
    room = Room(TWO)
    room.connections[0].pause()
    room.transports[0].unread_bytes = 1001
    count = room.deliver(1080)
    # A number for the wire, never a truth value.
    assert (count, type(count)) == (0, int)
    assert type(Room(TWO).deliver(1080)) is int
    assert len(room.channel) == 0
    assert room.deliver(1160) == 0
    assert room.channel.cursor == 1160


def test_late_message_is_delivered_to_who_has_not_got_it_and_does_not_take_the_cursor_back() -> None:
    room = Room(TWO, TWO)
    room.connections[0].sent_mid = Mid(1080)
    room.channel.cursor = Mid(1160)
    # Both have it now.
    assert room.deliver(1080) == 2
    assert room.taken() == [b"", frame(1080)]
    assert room.channel.cursor == 1160


def test_connection_that_catches_up_holds_the_message_and_counts() -> None:
    room = Room(TWO, TWO)
    catch_up = room.connections[0].catch_up = CatchUp(1000, CometMetrics(Stats()), Mid(0))
    assert room.deliver(1080) == 2
    assert room.taken() == [b"", frame(1080)]
    assert [message.mid for message in catch_up._take_up_to(None)] == [1080]


def test_gap_is_told_to_live_connections_of_version_2() -> None:
    room = Room(OLD, ONE, TWO, TWO, TWO)
    room.connections[3].catch_up = CatchUp(1000, CometMetrics(Stats()), Mid(0))
    room.transports[4].has_failed = True
    assert room.channel.announce_gap(Mid(1240)) == 1
    gap = b'{"gap":{"after":1000,"before":1240}}'
    assert room.taken() == [b"", b"", b"$%d\r\n%b\r\n" % (len(gap), gap), b"", b""]
    assert room.context.closes == [CloseReason.PEER_LOST]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_connections_come_and_go_in_order_of_arrival(count: int) -> None:
    room = Room(*[TWO] * count)
    assert len(room.channel) == count
    assert room.channel.connections() == room.connections
    left = list(room.connections)
    while left:
        leaving = left.pop(len(left) // 2)
        assert leaving.channel is room.channel
        room.channel.remove(leaving)
        assert leaving.channel is None
        assert room.channel.connections() == left
        assert len(room.channel) == len(left)
    # It lives on when its cursor leads the clock (hub.py).
    room.channel.add(room.connections[0])
    assert room.channel.connections() == [room.connections[0]]
    assert room.deliver(1080) == 1


def test_one_connection_stands_without_a_container() -> None:
    room = Room(TWO, TWO)
    assert isinstance(room.channel._connections, list)
    room.channel.remove(room.connections[0])
    assert room.channel._connections is room.connections[1]
