"""A message is encoded once per shape and framed once per wire, however many connections it goes to."""

from __future__ import annotations

from cluster.model import Mid
from comet.codec.protocol import ClientVersion
from comet.codec.wires import TcpWire, WebSocketWire
from comet.subscribers.outgoing import Outgoing

TCP = [TcpWire(version) for version in ClientVersion]
WEBSOCKET = [WebSocketWire(version) for version in ClientVersion]


def test_each_wire_gets_its_frame_in_the_shape_of_its_version() -> None:
    message = Outgoing(Mid(80), b"[1]", is_stored=True)
    raw, text = b'{"msg":[1],"mid":80,"gid":0}', b'{"msg":"[1]","mid":80,"gid":0}'
    assert [message.frame_for(wire) for wire in TCP] == [
        b"$30\r\n%b\r\n" % text,
        *[b"$28\r\n%b\r\n" % raw] * 2,
    ]
    assert [message.frame_for(wire) for wire in WEBSOCKET] == [b"\x81\x1e" + text, *[b"\x81\x1c" + raw] * 2]


def test_frame_is_made_once_for_all_connections_of_a_wire() -> None:
    message = Outgoing(Mid(80), b"[1]", is_stored=True)
    for wire in (*TCP, *WEBSOCKET):
        assert message.frame_for(wire) is message.frame_for(wire)
