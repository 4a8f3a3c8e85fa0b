"""The recorded conversations of the original, replayed.

Mids and ports are replaced by MID and the server's own; dates and connection
headers are not compared (connections are kept alive here). An answer that is
no answer of the API (404, 405, 400) is compared by its status: its text is not
part of the contract. Where a WebSocket ends, one close frame may follow what
was recorded. On-purpose differences: vector_differences.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.e2e import vector_differences as differences
from tests.e2e.recording import (
    VECTORS,
    assert_headers_kept,
    close_code,
    framed,
    names,
    read_head,
    recorded_bytes,
    what_arrives,
    without_mids,
)
from tests.support.http import Response
from tests.support.peer import Peer
from tests.support.subscriber import Subscriber
from tests.support.system import Server


def test_every_named_difference_is_a_vector() -> None:
    named = {
        *differences.HTTP,
        *differences.TCP,
        *differences.WEBSOCKET,
        *differences.PUSHED,
        *differences.SCENES,
        *differences.NOT_REPLAYED,
    }
    assert named <= set(VECTORS)


# -- HTTP


def request_bytes(server: Server, vector: dict[str, Any]) -> tuple[str, bytes]:
    kind = "admin" if ":18091" in vector["request"] else "public"
    return kind, recorded_bytes(vector["request"])


def expected_answer(server: Server, vector: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    text = vector["response"].removeprefix("HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = text.partition("\r\n\r\n")
    status_line, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = body.replace(":16968", f":{server.addresses['ws'][1]}")
    body = body.replace(":16969", f":{server.addresses['tcp'][1]}")
    return int(status_line.split(" ")[1]), headers, recorded_bytes(body)


# What is pushed (and deleted) before a vector: (key, payload, expire), None = delete the key.
TWO = [
    ("off1", '{"test":1}', 600),
    ("off1", '{"test":2,"s":"a<b>&c 你 \\u4f60"}', 600),
]
SETUP: dict[str, list[tuple[str, str | None, int]]] = {
    "msg0_two": [("off1", None, 0), *TWO],
    "msg1_two_cb": [("off1", None, 0), *TWO],
    "msg1_before_first_mid": [("off1", None, 0), *TWO],
    "msg1_after_expire0": [("off2", '{"test":1}', 0)],
    "msg1_expire1_immediately": [("off3", None, 0), ("off3", '{"test":1}', 1)],
    "msg1_mA": [("mA", None, 0), ("mA", '{"test":1}', 600)],
    "msg1_after_del": [("off1", '{"test":1}', 600), ("off1", None, 0)],
}


async def prepare(server: Server, name: str) -> None:
    for key, payload, expire_s in SETUP.get(name, []):
        if payload is None:
            answer = await server.ask("admin", "POST", "/1/admin/msg/del", f"key={key}".encode())
            assert answer.json == {"ret": 0}
        else:
            assert await server.push(key, payload.encode(), expire_s) == 0


@pytest.mark.parametrize("name", names("http"))
async def test_http_is_answered_as_recorded(server: Server, name: str) -> None:
    vector = VECTORS[name]
    kind, request = request_bytes(server, vector)
    await prepare(server, name)
    if name == "msg1_before_first_mid":
        first = (await server.fetch("off1"))[0]["mid"]
        request = re.sub(rb"m=[0-9]{17}", b"m=%d" % (first - 1), request)

    client = server.http(kind)
    async with delivered_to(server, name) as deliveries:
        try:
            has_body = not request.startswith(b"HEAD ")
            answer = await client.raw(request, has_body=has_body)
        finally:
            await client.close()
        compare_answer(server, vector, answer)
        await compare_deliveries(vector, deliveries)


def compare_answer(server: Server, vector: dict[str, Any], answer: Response) -> None:
    status, headers, body = expected_answer(server, vector)
    content_type = headers.get("content-type")
    difference = differences.HTTP.get(vector["name"])
    if difference is not None:
        status = difference.status
        body = body if difference.body is None else difference.body
        content_type = difference.content_type or content_type
    assert answer.status == status
    if status != 200:
        return
    assert without_mids(answer.body) == without_mids(body)
    assert answer.headers["content-type"] == content_type
    assert answer.headers["content-length"] == str(len(answer.body))
    assert "transfer-encoding" not in answer.headers
    assert "content-encoding" not in answer.headers


@asynccontextmanager
async def delivered_to(server: Server, name: str) -> AsyncIterator[dict[str, Subscriber]]:
    """The two subscribers that the recording of pushes to many keys had."""
    if not name.startswith("mpriv_"):
        yield {}
        return
    async with server.tcp("mA", version="1.0") as versioned, server.tcp("mB") as old:
        yield {"delivered_mA_ver": versioned, "delivered_mB_old": old}


async def compare_deliveries(vector: dict[str, Any], deliveries: dict[str, Subscriber]) -> None:
    difference = differences.HTTP.get(vector["name"])
    for name, subscriber in deliveries.items():
        expected = vector[name]
        if difference is not None and difference.delivered is not None:
            expected = difference.delivered
        assert framed(await what_arrives(subscriber)) == without_mids(recorded_bytes(expected))


# -- TCP


@pytest.mark.parametrize("name", names("tcp"))
async def test_tcp_is_answered_as_recorded(server: Server, name: str) -> None:
    vector = VECTORS[name]
    difference = differences.TCP.get(name)
    steps = vector.get("steps", [])
    response = recorded_bytes(vector["response"])
    is_open = vector["closed"] == "open"
    if difference is not None:
        response, is_open = difference.response, difference.is_open
    first = response[: len(response) - sum(len(step["recv"]) for step in steps)]

    peer = await Peer.connect(server.addresses["tcp"])
    try:
        await peer.send(recorded_bytes(vector["request"]))
        assert await peer.read_exactly(len(first)) == first
        for step in steps:
            await peer.send(recorded_bytes(step["send"]))
            assert await peer.read_exactly(len(step["recv"])) == recorded_bytes(step["recv"])
        if is_open:
            await peer.send(b"h")
            assert await peer.read_exactly(4) == b"+h\r\n"
        else:
            assert await peer.read_to_end() == b""
    finally:
        await peer.close()


async def test_tcp_client_half_close_ends_the_connection(server: Server) -> None:
    vector = VECTORS["tcp_client_half_close"]
    peer = await Peer.connect(server.addresses["tcp"])
    try:
        await peer.send(recorded_bytes(vector["request"]))
        assert await peer.read_exactly(4) == recorded_bytes(vector["response"])
        peer.writer.write_eof()
        assert await peer.read_to_end() == b""
    finally:
        await peer.close()


async def test_tcp_65th_subscriber_of_a_key_is_closed_silently_until_one_has_left(server: Server) -> None:
    request = recorded_bytes(VECTORS["tcp_65th_subscriber"]["request"])
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(server.tcp("maxk")) for _ in range(64)]
        peer = await Peer.connect(server.addresses["tcp"])
        stack.push_async_callback(peer.close)
        await peer.send(request)
        assert await peer.read_to_end() == recorded_bytes(VECTORS["tcp_65th_subscriber"]["response"])

        held[0].peer.writer.write_eof()
        await held[0].end()
        later = await Peer.connect(server.addresses["tcp"])
        stack.push_async_callback(later.close)
        await later.send(request)
        response = recorded_bytes(VECTORS["tcp_after_one_left"]["response"])
        assert await later.read_exactly(4) == response


# -- WebSocket


@pytest.mark.parametrize("name", names("ws"))
async def test_websocket_is_answered_as_recorded(server: Server, name: str) -> None:
    vector = VECTORS[name]
    difference = differences.WEBSOCKET.get(name)
    frames = vector.get("frames", [])
    peer = await Peer.connect(server.addresses["ws"])
    try:
        await peer.send(recorded_bytes(vector["request"]))
        head = await read_head(peer)
        expected_head, _, rest = recorded_bytes(vector["response"]).partition(b"\r\n\r\n")
        status = head.split(b" ")[1]
        if not expected_head.startswith(b"HTTP/1.1 101"):
            assert status == expected_head.split(b" ")[1]
            assert_headers_kept(expected_head, head)
            return
        assert status == b"101"
        assert_headers_kept(expected_head, head)
        if difference is not None:
            rest = difference.frames
        assert await peer.read_exactly(len(rest)) == rest
        await replay_frames(peer, frames, is_different=difference is not None)
        await compare_end(peer, vector, difference)
    finally:
        await peer.close()


async def replay_frames(peer: Peer, frames: list[dict[str, str]], is_different: bool) -> None:
    for frame in frames:
        if "send_hex" in frame:
            await peer.send(bytes.fromhex(frame["send_hex"]))
        elif not is_different:
            expected = bytes.fromhex(frame["recv_hex"])
            assert await peer.read_exactly(len(expected)) == expected


async def compare_end(peer: Peer, vector: dict[str, Any], difference: differences.WebSocket | None) -> None:
    is_open = difference.is_open if difference is not None else vector["closed"] == "open"
    if is_open:
        # A ping may stand between fragments too.
        await peer.send(bytes.fromhex("898001020304"))
        assert await peer.read_exactly(2) == b"\x8a\x00"
        return
    end = await peer.read_to_end()
    if difference is not None and difference.close_code is not None:
        assert close_code(end) == difference.close_code
    elif end:
        close_code(end)
