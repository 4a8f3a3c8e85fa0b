"""Bad input on the WebSocket port of a running server. Frame by frame: the Autobahn cases in tests/wire."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest

from tests.e2e.hostile import ENDS_WITHIN_S, SHORT_DEADLINES, answer_of, drip_bytes
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.support.peer import Peer
from tests.support.subscriber import End, Line, WebSocketSubscriber, handshake, subscribe_websocket
from tests.support.system import Server

# Of the module's server.
CONFIG = SHORT_DEADLINES


pytestmark = pytest.mark.usefixtures("bystander")


BAD_PARAMETERS = {
    "no key": "/sub?heartbeat=30",
    "empty key": "/sub?key=&heartbeat=30",
    "no heartbeat": "/sub?key=k",
    "heartbeat 29": "/sub?key=k&heartbeat=29",
    "heartbeat text": "/sub?key=k&heartbeat=x",
    "heartbeat of 30 digits": "/sub?key=k&heartbeat=" + "1" * 30,
    "no parameters": "/sub",
    "key not UTF-8": "/sub?key=%ff&heartbeat=30",
    "key with a control": "/sub?key=a%0d%0ab&heartbeat=30",
    "key of 513 bytes": "/sub?key=" + "k" * 513 + "&heartbeat=30",
    "resume mid text": "/sub?key=k&heartbeat=30&ver=2&mid=x",
    "device of 65 bytes": "/sub?key=k&heartbeat=30&ver=2&dev=" + "d" * 65,
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
async def test_bad_parameter_is_told_after_the_101_and_closed(server: Server, name: str) -> None:
    request, accept = handshake(BAD_PARAMETERS[name], "a")
    answer = await answer_of(server, "ws", request)
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert accept in head
    assert frames.startswith(b"\x81\x04-p\r\n")
    # At most a close frame follows.
    assert frames[6:7] in (b"", b"\x88")


def request(target: str = "/sub?key=k&heartbeat=30", method: str = "GET", **changes: str | None) -> bytes:
    """A handshake with headers changed or (None) left out; underscores stand for dashes."""
    headers: dict[str, str | None] = {
        "Host": "a",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value is not None)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


REJECTED = {
    "version 8": (request(Sec_WebSocket_Version="8"), {400, 426}),
    "no version": (request(Sec_WebSocket_Version=None), {400, 426}),
    "no nonce": (request(Sec_WebSocket_Key=None), {400}),
    "short nonce": (request(Sec_WebSocket_Key="YWJj"), {400}),
    "POST": (request(method="POST"), {405}),
    "plain GET": (b"GET /sub?key=k&heartbeat=30 HTTP/1.1\r\nHost: a\r\n\r\n", {400, 426}),
    "other path": (request("/other?key=k&heartbeat=30"), {404}),
    "header flood": (request(X_Flood="x" * 65_536), {431}),
    "many headers": (request(**{f"X_{n}": "y" for n in range(5000)}), {431}),
    "request line flood": (b"GET /sub?key=" + b"k" * 65_536, {431}),
    "foreign origin": (request(Origin="https://evil.example"), {403}),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00", {400}),
    "bad request line": (b"GET\r\n\r\n", {400}),
    "folded header": (b"GET /sub HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", {400}),
    "body": (request(Content_Length="5") + b"hello", {400}),
    "chunked body": (request(Transfer_Encoding="chunked"), {400}),
}


@pytest.mark.parametrize("name", REJECTED)
async def test_bad_handshake_is_an_http_error(server: Server, name: str) -> None:
    data, statuses = REJECTED[name]
    answer = await answer_of(server, "ws", data)
    assert int(answer.split(b" ")[1]) in statuses
    if "version" in name:
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


ACCEPTED = {
    "no origin": request(),
    "listed origin": request(Origin="https://good.example"),
    "offer of compression": request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
    "unknown parameters": request("/sub?key=k&heartbeat=30&x=1&y"),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_good_handshake_is_accepted_without_extensions(server: Server, name: str) -> None:
    peer = await Peer.connect(server.addresses["ws"])
    try:
        await peer.send(ACCEPTED[name])
        async with asyncio.timeout(ENDS_WITHIN_S):
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-extensions" not in head.lower()
        assert await peer.read_exactly(6) == b"\x81\x04+h\r\n"
    finally:
        await peer.close()


CLOSED = {
    "unmasked": (frame(TEXT, b"h", is_masked=False), 1002),
    "reserved bit 1": (frame(TEXT, b"h", rsv=4), 1002),
    "reserved bit 3": (frame(TEXT, b"h", rsv=1), 1002),
    "reserved opcode 3": (frame(3, b"h"), 1002),
    "reserved opcode 11": (frame(11, b""), 1002),
    "ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "fragmented ping": (frame(PING, b"x", is_final=False), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"h"), 1002),
    "text within fragments": (frame(TEXT, b"h", is_final=False) + frame(TEXT, b"h"), 1002),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close code 1005": (frame(CLOSE, struct.pack("!H", 1005)), 1002),
    "invalid UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "invalid UTF-8 in a close": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    # Only the header is sent: nothing may be waited for.
    "announced 64-bit length": (frame(BINARY, b"", announced=2**40), 1009),
    "announced highest length": (frame(BINARY, b"", announced=2**63 - 1), 1009),
    "message of 5 KiB": (frame(TEXT, b"h" * 5120), 1009),
    "endless fragments": (
        frame(TEXT, b"h" * 100, is_final=False) + frame(CONTINUATION, b"h" * 100, is_final=False) * 100,
        1009,
    ),
}


@pytest.mark.parametrize("name", CLOSED)
async def test_bad_frame_fails_the_connection_with_its_code(server: Server, name: str) -> None:
    data, code = CLOSED[name]
    async with server.websocket("k", version="2") as subscriber:
        with contextlib.suppress(ConnectionError):
            await subscriber.peer.send(data)
        assert (await subscriber.end(ENDS_WITHIN_S)).code == code


WRONG_MESSAGES = {
    "other text": frame(TEXT, b"x"),
    "empty text": frame(TEXT, b""),
    "two heartbeats in one frame": frame(TEXT, b"hh"),
    "heartbeat in capitals": frame(TEXT, b"H"),
    "acknowledgement of nothing": frame(TEXT, b"a"),
    "acknowledgement above what was sent": frame(TEXT, b"a17952284581652160"),
    "acknowledgement of 20 digits": frame(TEXT, b"a" + b"9" * 20),
}


@pytest.mark.parametrize("name", WRONG_MESSAGES)
async def test_anything_but_heartbeats_and_acknowledgements_ends_the_connection(
    server: Server, name: str
) -> None:
    async with server.websocket("k", version="2") as subscriber:
        await subscriber.peer.send(WRONG_MESSAGES[name])
        assert (await subscriber.end(ENDS_WITHIN_S)).code in (1002, 1008)


async def test_ping_is_answered_with_its_payload(server: Server) -> None:
    async with server.websocket("k") as subscriber:
        await subscriber.send_frame(PING, b"x" * 125)
        assert await subscriber.receive_frame() == (PONG, b"x" * 125)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_close_is_answered_with_its_code(server: Server, code: int) -> None:
    async with server.websocket("k") as subscriber:
        await subscriber.send_frame(CLOSE, struct.pack("!H", code) + b"bye")
        assert (await subscriber.receive()) == End(code, "")


async def test_heartbeat_in_two_fragments_is_one_heartbeat(server: Server) -> None:
    async with server.websocket("k") as subscriber:
        await subscriber.peer.send(frame(TEXT, b"", is_final=False) + frame(CONTINUATION, b"h"))
        assert await subscriber.receive() == Line(b"+h\r\n")
        await subscriber.send_frame(PING, b"")
        assert await subscriber.receive_frame() == (PONG, b"")


INCOMPLETE = {
    "nothing": b"",
    "half a request line": b"GET /sub?key=k",
    "half a header": request()[:-6],
}


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_incomplete_handshake_is_closed_at_its_deadline(server: Server, name: str) -> None:
    answer = await answer_of(server, "ws", INCOMPLETE[name])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")


async def test_dripping_handshake_does_not_extend_its_deadline(server: Server) -> None:
    peer = await Peer.connect(server.addresses["ws"])
    drip = asyncio.create_task(drip_bytes(peer, request(X_Long="x" * 4000)))
    try:
        answer = await peer.read_to_end(ENDS_WITHIN_S)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    finally:
        drip.cancel()
        await asyncio.gather(drip, return_exceptions=True)
        await peer.close()


async def test_flood_of_pings_without_reading_is_bounded(server: Server) -> None:
    subscriber: WebSocketSubscriber = await subscribe_websocket(
        server.addresses["ws"], "flood", receive_buffer_bytes=4096
    )
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                for _ in range(100):
                    subscriber.peer.writer.write(frame(PING, b"x" * 125) * 500)
                    await subscriber.peer.writer.drain()
        async with server.websocket("flood") as other:
            await other.beat()
    finally:
        await subscriber.close()


async def test_frames_in_the_packet_of_the_handshake_are_read(server: Server) -> None:
    peer = await Peer.connect(server.addresses["ws"])
    try:
        await peer.send(request() + frame(TEXT, b"h"))
        async with asyncio.timeout(ENDS_WITHIN_S):
            await peer.reader.readuntil(b"\r\n\r\n")
        assert await peer.read_exactly(12) == b"\x81\x04+h\r\n" * 2
    finally:
        await peer.close()
