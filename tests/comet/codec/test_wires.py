"""Wires: the server's words as bytes of each transport and client version."""

from __future__ import annotations

import pytest

from comet.codec.protocol import ClientVersion, CloseReason, Refusal
from comet.codec.wires import TcpWire, WebSocketWire, websocket_wires

OLD, ONE, TWO = ClientVersion


# -- raw TCP


def test_tcp_frame_is_one_bulk_string_with_its_length_in_bytes() -> None:
    wire = TcpWire(TWO)
    assert wire.frame('{"msg":"ü"}'.encode()) == '$12\r\n{"msg":"ü"}\r\n'.encode()
    assert wire.heartbeat == b"+h\r\n"


@pytest.mark.parametrize("reason", CloseReason)
def test_tcp_tells_version_2_the_codes_that_it_knows_and_others_nothing(reason: CloseReason) -> None:
    for version in (OLD, ONE):
        assert TcpWire(version).farewell(reason) == b""
    announced = reason.code == 1001 or 4000 <= reason.code < 5000
    expected = f"-{reason.code} {reason.text}\r\n".encode() if announced else b""
    assert TcpWire(TWO).farewell(reason) == expected
    assert expected.count(b"\n") <= 1


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (Refusal.PARAMETER, b"-p\r\n"),
        (Refusal.NOT_OWNER, b"-n\r\n"),
        (Refusal.OVERLOADED, b"-c\r\n"),
        (Refusal.DRAINING, b"-c\r\n"),
        (Refusal.BAD_TOKEN, b"-a\r\n"),
        (Refusal.TOO_MANY, b""),
        (Refusal.TOO_MANY_TOKENS, b""),
    ],
)
def test_refusals_have_the_lines_of_the_compatible_protocol(refusal: Refusal, line: bytes) -> None:
    assert TcpWire(TWO).line(refusal.line) == line


# -- WebSocket


def test_farewells_of_all_reasons_fit_their_version() -> None:
    for wire in websocket_wires():
        for reason in CloseReason:
            said = wire.farewell(reason)
            if not reason.text:
                assert said == b""
            elif wire.version == 2:
                assert said[2:] == reason.code.to_bytes(2, "big") + reason.text.encode()
            else:
                assert said in (b"\x88\x00", b"\x88\x02" + reason.code.to_bytes(2, "big"))
                assert (said == b"\x88\x00") == (reason.code >= 4000)


def test_wire_speaks_in_text_frames() -> None:
    wire: WebSocketWire = websocket_wires()[0]
    assert wire.heartbeat == b"\x81\x04+h\r\n"
    assert wire.line(b"-p\r\n") == b"\x81\x04-p\r\n"
    assert wire.line(b"") == b""
    assert wire.frame(b"{}") == b"\x81\x02{}"
