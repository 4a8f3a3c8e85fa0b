"""WebSocket subscribers at a real node: handshake, frames, farewells, floods.

Bad input by the dozen is in tests/e2e/test_hostile_websocket.py, the codec in
tests/comet/codec/test_frames.py.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.model import Key
from cluster.tokens import mint
from tests.support.comet import Comet, running_comet
from tests.support.eventually import eventually
from tests.support.frames import frame
from tests.support.peer import Peer
from tests.support.subscriber import (
    Document,
    End,
    Line,
    WebSocketSubscriber,
    handshake,
    subscribe_websocket,
)

HEARTBEAT = b"\x81\x04+h\r\n"


@pytest.fixture
async def comet(tmp_path: Path) -> AsyncIterator[Comet]:
    async with running_comet(tmp_path, ws_handshake_s=0.4) as started:
        yield started


async def opened(comet: Comet, key: str = "k", **options: str) -> WebSocketSubscriber:
    subscriber = await subscribe_websocket(comet.ws, key, **options)  # type: ignore[arg-type]
    await subscriber.open()
    return subscriber


def request(target: str = "/sub?key=k&heartbeat=30", **headers: str) -> bytes:
    data, _ = handshake(target, "a", {name.replace("_", "-"): value for name, value in headers.items()})
    return data


async def status_of(comet: Comet, data: bytes) -> bytes:
    """The status line that a request is answered with."""
    peer = await Peer.connect(comet.ws)
    try:
        await peer.send(data)
        return (await peer.reader.readline()).strip()
    finally:
        await peer.close()


async def test_request_may_come_byte_by_byte_and_frames_at_once(comet: Comet) -> None:
    data = request() + frame(1, b"h") + frame(9, b"?")
    peer = await Peer.connect(comet.ws)
    for byte in data[:-20]:
        await peer.send(bytes([byte]))
    await peer.send(data[-20:])
    assert await peer.reader.readuntil(b"\r\n\r\n")
    assert await peer.read_exactly(12 + 3) == HEARTBEAT * 2 + b"\x8a\x01?"
    await peer.close()


@pytest.mark.parametrize("opcode", [1, 2])
async def test_heartbeat_may_be_text_or_binary_whole_or_in_pieces(comet: Comet, opcode: int) -> None:
    subscriber = await opened(comet)
    for data in (
        frame(opcode, b"h"),
        frame(opcode, b"h", is_final=False) + frame(0, b""),
        frame(opcode, b"", is_final=False) + frame(9, b"") + frame(0, b"h"),
    ):
        await subscriber.peer.send(data)
        assert await subscriber.receive() == Line(b"+h\r\n")
        for byte in data:
            await subscriber.peer.send(bytes([byte]))
        assert await subscriber.receive() == Line(b"+h\r\n")
    await subscriber.close()


@pytest.mark.parametrize(
    ("version", "document"),
    [
        ("", b'{"msg":"{\\"n\\":1}","mid":%d,"gid":0}'),
        ("1", b'{"msg":{"n":1},"mid":%d,"gid":0}'),
        ("2", b'{"msg":{"n":1},"mid":%d,"gid":0}'),
    ],
)
async def test_message_is_one_text_frame_in_the_shape_of_the_version(
    comet: Comet, version: str, document: bytes
) -> None:
    subscriber = await opened(comet, version=version)
    mid = await comet.push("k", b'{"n":1}')
    assert await subscriber.receive() == Document(document % mid)
    await subscriber.close()


# -- handshake


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/other"), b"HTTP/1.1 404 Not Found"),
        (request().replace(b"GET", b"POST", 1), b"HTTP/1.1 405 Method Not Allowed"),
        (request(Sec_WebSocket_Version="8"), b"HTTP/1.1 400 Bad Request"),
        (b"*3\r\n$3\r\nsub\r\n", b"HTTP/1.1 400 Bad Request"),
        (request(Cookie="x" * 65536), b"HTTP/1.1 431 Request Header Fields Too Large"),
    ],
)
async def test_bad_request_gets_an_http_error_that_arrives(comet: Comet, data: bytes, status: bytes) -> None:
    assert await status_of(comet, data) == status
    assert comet.counted("refusals_total", "protocol_error") == 1


@pytest.mark.parametrize("begun", [b"", b"GET /sub?key=k HTTP/1.1\r\nHost: a\r\n"])
async def test_request_that_takes_too_long_is_closed(comet: Comet, begun: bytes) -> None:
    peer = await Peer.connect(comet.ws)
    await peer.send(begun)
    assert await peer.read_to_end() == b""
    assert comet.counted("refusals_total", "handshake_timeout") == 1
    await peer.close()


async def test_listed_origins_and_peers_without_one_are_let_in(tmp_path: Path) -> None:
    async with running_comet(tmp_path, ws_origins=("https://a.example",)) as comet:
        assert (
            await status_of(comet, request(Origin="https://a.example")) == b"HTTP/1.1 101 Switching Protocols"
        )
        assert await status_of(comet, request()) == b"HTTP/1.1 101 Switching Protocols"
        assert await status_of(comet, request(Origin="https://b.example")) == b"HTTP/1.1 403 Forbidden"


# -- refusals and endings


@pytest.mark.parametrize(
    ("version", "end"), [("", End(1008)), ("1.0", End(1008)), ("2", End(1008, "bad parameters"))]
)
async def test_wrong_parameter_is_told_in_a_frame_and_a_close_frame(
    comet: Comet, version: str, end: End
) -> None:
    subscriber = await subscribe_websocket(comet.ws, "k", heartbeat_s=29, version=version)
    assert await subscriber.receive() == Line(b"-p\r\n")
    assert await subscriber.receive() == end
    await subscriber.close()


@pytest.mark.parametrize(
    ("version", "line", "end"),
    [("", b"-a\r\n", End(1005)), ("2", b"-a\r\n", End(4401, "token refused or expired"))],
)
async def test_missing_token_is_told_with_a_code_to_version_2_only(
    tmp_path: Path, version: str, line: bytes, end: End
) -> None:
    async with running_comet(tmp_path, secrets=("s",)) as comet:
        subscriber = await subscribe_websocket(comet.ws, "k", version=version)
        assert await subscriber.receive() == Line(line)
        assert await subscriber.receive() == end
        await subscriber.close()


@pytest.mark.parametrize("version", ["", "2"])
async def test_address_of_many_bad_tokens_is_not_even_upgraded(tmp_path: Path, version: str) -> None:
    async with running_comet(tmp_path, secrets=("s",), token_failures_per_minute=1) as comet:
        subscriber = await subscribe_websocket(comet.ws, "k", version=version)
        assert await subscriber.receive() == Line(b"-a\r\n")
        await subscriber.close()
        for token in ("guess", mint("s", Key("k"), 4_000_000_000)):
            peer = await Peer.connect(comet.ws)
            await peer.send(handshake(f"/sub?key=k&heartbeat=30&token={token}&ver={version}", "h")[0])
            assert await peer.read_to_end() == b""
            await peer.close()
        assert comet.counted("refusals_total", "too_many_tokens") == 2


async def test_one_connection_too_many_is_told_by_the_close_frame_alone(tmp_path: Path) -> None:
    async with running_comet(tmp_path, max_connections_per_key=1) as comet:
        first = await opened(comet)
        for version, end in (("", End(1005)), ("2", End(4005, "too many connections for this key"))):
            subscriber = await subscribe_websocket(comet.ws, "k", version=version)
            assert await subscriber.receive() == end
            await subscriber.close()
        await first.close()


@pytest.mark.parametrize(("version", "end"), [("", End(1005)), ("2", End(4004, "the key was deleted"))])
async def test_end_of_a_connection_is_a_close_frame(comet: Comet, version: str, end: End) -> None:
    subscriber = await opened(comet, version=version)
    await comet.node.delete_key(Key("k"), (0, 0))
    assert await subscriber.receive() == end
    # Its answer to the close frame has ended the socket before the linger time.
    await eventually(lambda: comet.open_sockets == 0)
    await subscriber.close()


async def test_peer_that_does_not_answer_our_close_frame_is_cut_after_a_while(comet: Comet) -> None:
    subscriber = await opened(comet, version="2")
    await comet.node.delete_key(Key("k"), (0, 0))
    opcode, _ = await subscriber.receive_frame()
    assert opcode == 8
    await subscriber.peer.send(frame(1, b"h"))
    assert await subscriber.peer.read_to_end() == b""
    assert comet.open_sockets == 0
    await subscriber.close()


@pytest.mark.parametrize(
    ("payload", "answer"),
    [(b"", b"\x88\x00"), (b"\x03\xe8bye", b"\x88\x02\x03\xe8"), (b"\x0f\xa0", b"\x88\x02\x0f\xa0")],
)
async def test_close_is_answered_with_the_same_code(comet: Comet, payload: bytes, answer: bytes) -> None:
    subscriber = await opened(comet)
    await subscriber.send_frame(8, payload)
    assert await subscriber.peer.read_to_end() == answer
    assert comet.counted("closes_total", "peer_closed") == 1
    await subscriber.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01h", 1002),
        (b"\xc1\x81\0\0\0\0h", 1002),
        (frame(1, b"\xff"), 1007),
        (b"\x81\xfe\x10\x01", 1009),
        (frame(1, b"x"), 1002),
        (frame(1, b""), 1002),
        (frame(1, b"a0"), 1002),
    ],
)
@pytest.mark.parametrize("version", ["", "1.0"])
async def test_violation_ends_the_connection_with_its_code_and_a_half_close(
    comet: Comet, version: str, data: bytes, code: int
) -> None:
    subscriber = await opened(comet, version=version)
    await subscriber.peer.send(frame(1, b"h") + data)
    assert await subscriber.receive() == Line(b"+h\r\n")
    answer = await subscriber.peer.read_to_end()
    assert answer == b"\x88\x02" + code.to_bytes(2, "big")
    await subscriber.close()


async def test_end_without_a_close_frame_is_a_lost_peer(comet: Comet) -> None:
    subscriber = await opened(comet)
    subscriber.peer.writer.write_eof()
    assert await subscriber.peer.read_to_end() == b""
    assert comet.counted("closes_total", "peer_lost") == 1
    await subscriber.close()


async def test_acknowledgement_counts_for_the_device(comet: Comet) -> None:
    subscriber = await opened(comet, version="2", device="d")
    first = await comet.push("k", b"1", expire_s=60)
    await subscriber.next_document()
    await subscriber.acknowledge(first)
    await subscriber.beat()
    await subscriber.close()
    second = await comet.push("k", b"2", expire_s=60)
    resumed = await opened(comet, version="2", device="d", mid="ack")
    assert (await resumed.next_document()).mid == second
    await resumed.close()


# -- floods


async def test_flood_of_pings_without_reading_ends_as_a_slow_consumer(tmp_path: Path) -> None:
    async with running_comet(tmp_path, unread_limit_bytes=100_000, max_frames_per_s=1_000_000) as comet:
        subscriber = await subscribe_websocket(comet.ws, "k", receive_buffer_bytes=2048)
        await subscriber.open()
        subscriber.peer.writer.write(frame(9, b"x" * 125) * 5000)
        await eventually(lambda: comet.counted("closes_total", "slow_consumer") == 1)
        await subscriber.close()


async def test_sender_over_the_limit_waits(tmp_path: Path) -> None:
    async with running_comet(tmp_path, max_frames_per_s=10) as comet:
        subscriber = await opened(comet)
        began = time.monotonic()
        await subscriber.peer.send(frame(1, b"h") * 11)
        for _ in range(11):
            assert await subscriber.receive() == Line(b"+h\r\n")
        await subscriber.beat()
        assert time.monotonic() - began > 0.9
        await subscriber.close()
