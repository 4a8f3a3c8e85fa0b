"""The recorded conversations of the original, replayed.

Mids and ports are replaced by MID and the server's own; dates and connection
headers are not compared (connections are kept alive here). An answer that is
no answer of the API (404, 405, 400) is compared by its status: its text is not
part of the contract. Where a WebSocket ends, one close frame may follow what
was recorded. On-purpose differences: vector_differences.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.model import Key
from cluster.tokens import mint
from tests.e2e import vector_differences as differences
from tests.support.http import HttpClient, Response
from tests.support.peer import Peer
from tests.support.subscriber import HEARTBEAT_LINE, Document, Line, Subscriber, subscribe_tcp
from tests.support.system import Server, running

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent / "vectors" / "gopush_vectors.json").read_text())
}
SECRET = "s3cret"


def names(proto: str) -> list[str]:
    special = differences.SCENES | set(differences.NOT_REPLAYED)
    return [name for name, v in VECTORS.items() if v["proto"] == proto and name not in special]


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


def without_mids(data: bytes) -> bytes:
    """17 digits are a mid, in a document or at the end of a query."""
    return re.sub(rb"(?<![0-9])1[0-9]{16}(?![0-9])", b"MID", data)


def recorded_bytes(text: str) -> bytes:
    return text.encode("latin-1")


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


async def what_arrives(subscriber: Subscriber) -> bytes:
    """The document that has been delivered before the push was answered; nothing when there is none.

    A heartbeat that is sent after the answer is answered after the delivery.
    """
    await subscriber.send_beat()
    received = await subscriber.receive()
    if received == Line(HEARTBEAT_LINE):
        return b""
    assert isinstance(received, Document), received
    assert await subscriber.receive() == Line(HEARTBEAT_LINE)
    return received.raw


def framed(document: bytes) -> bytes:
    """As the recording has it: with the length that it has with a real mid."""
    return b"$%d\r\n%b\r\n" % (len(document), without_mids(document)) if document else b""


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


async def read_head(peer: Peer) -> bytes:
    async with asyncio.timeout(10):
        return await peer.reader.readuntil(b"\r\n\r\n")


# The text of an error is not compared, so neither are the headers that describe it.
UNCOMPARED = (
    b"date:",
    b"content-type:",
    b"content-length:",
    b"x-content-type-options:",
    b"connection: close",
)


def assert_headers_kept(expected: bytes, head: bytes) -> None:
    lines = {line.lower() for line in head.split(b"\r\n")[1:]}
    for line in expected.lower().split(b"\r\n")[1:]:
        assert line in lines or line.startswith(UNCOMPARED), line


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


def close_code(end: bytes) -> int:
    """Of the one close frame that these bytes must be."""
    assert end[0] == 0x88, end
    assert end[1] == len(end) - 2, end
    code = struct.unpack("!H", end[2:4])[0] if len(end) > 2 else 1005
    assert isinstance(code, int)
    return code


# -- pushes


def whole(text: str) -> bytes:
    """A long value was shortened in the recording: its beginning, its end and its length are kept."""
    match = re.fullmatch(r"(?s)(.*?x)\.\.\.(x.*|[^x].*?) len=(\d+)\n?", text)
    if match is None:
        return recorded_bytes(text)
    begin, end, size = match[1], match[2], int(match[3])
    return recorded_bytes(begin + "x" * (size - len(begin) - len(end)) + end)


def document_of(recorded: bytes, transport: str) -> bytes:
    """Take the frame off; its length must be right."""
    if not recorded:
        return b""
    return (
        recorded[recorded.index(b"{") :].removesuffix(b"\r\n")
        if transport == "tcp"
        else recorded[recorded.index(b"{") :]
    )


@pytest.mark.parametrize("name", names("push"))
async def test_push_arrives_as_recorded(server: Server, name: str) -> None:
    vector = VECTORS[name]
    difference = differences.PUSHED.get(name, differences.Pushed("as recorded"))
    expire_s = int(name.rpartition("_expire")[2])
    key = f"push-{name}"
    async with AsyncExitStack() as stack:
        subscribers = {
            "tcp_ver": await stack.enter_async_context(server.tcp(key, version="1.0")),
            "tcp_old": await stack.enter_async_context(server.tcp(key)),
            "ws_ver": await stack.enter_async_context(server.websocket(key, version="1.0")),
            "ws_old": await stack.enter_async_context(server.websocket(key)),
        }
        target = f"/1/admin/push/private?key={key}&expire={expire_s}"
        answer = await server.ask("admin", "POST", target, whole(vector["request"]))
        expected = difference.response if difference.reason != "as recorded" else whole(vector["response"])
        assert answer.body == expected

        seen: set[int] = set()
        for who, subscriber in subscribers.items():
            document = await what_arrives(subscriber)
            recorded = document_of(whole(vector[who]), subscriber.transport)
            assert without_mids(document) == difference.received.get(who, without_mids(recorded)), who
            if document:
                seen.add(json.loads(document)["mid"])
        assert len(seen) <= 1
    await compare_stored(server, key, vector)


async def compare_stored(server: Server, key: str, vector: dict[str, Any]) -> None:
    for target, name in ((f"/1/msg/get?k={key}&m=0", "offline1"), (f"/msg/get?key={key}&mid=0", "offline0")):
        answer = await server.ask("public", "GET", target)
        if " len=" in vector[name]:
            # Recorded with its chunks; the length is what is left to compare.
            assert len(answer.body) == int(vector[name].rpartition(" len=")[2]) - CHUNKING
        else:
            assert without_mids(answer.body) == without_mids(recorded_bytes(vector[name])), name


# "SIZE CRLF" before and "CRLF 0 CRLF CRLF" after the body of a long answer, with a five-digit size.
CHUNKING = 7 + 7


async def test_concurrent_pushes_to_a_key_arrive_in_the_order_of_their_mids(server: Server) -> None:
    count = VECTORS["order_concurrent"]["n"]

    async def push_some(client: HttpClient) -> None:
        try:
            for number in range(count // 4):
                target = "/1/admin/push/private?key=order&expire=600"
                answer = await client.request("POST", target, b'{"n":%d}' % number)
                assert answer.json == {"ret": 0}
        finally:
            await client.close()

    async with server.tcp("order", version="1.0") as tcp, server.websocket("order") as websocket:
        await asyncio.gather(*(push_some(server.http("admin")) for _ in range(4)))
        over_tcp = [d.mid for d in await tcp.documents(count)]
        over_websocket = [d.mid for d in await websocket.documents(count)]
    stored = [message["mid"] for message in await server.fetch("order")]
    assert over_tcp == sorted(set(over_tcp))
    assert over_tcp == over_websocket == stored


async def test_equal_payloads_are_each_stored(server: Server) -> None:
    vector = VECTORS["dup_payload_same_second"]
    async with server.tcp("dup", version="1.0") as subscriber:
        for _ in range(5):
            assert await server.push("dup", {"same": 1}, 600) == 0
        documents = await subscriber.documents(5)
    received = b"".join(b"$%d\r\n%b\r\n" % (len(d.raw), without_mids(d.raw)) for d in documents)
    assert received == without_mids(recorded_bytes(vector["response"]))
    stored = await server.fetch("dup")
    assert [m["mid"] for m in stored] == [d.mid for d in documents]


async def test_pushes_to_keys_that_never_subscribed_leave_nothing(server: Server) -> None:
    keys = ",".join(f"never-{number}" for number in range(20_000))
    body = json.dumps({"m": "{}", "k": keys}).encode()

    answer = await server.ask("admin", "POST", "/1/admin/push/mprivate?expire=0", body)

    assert answer.json == {"ret": 0}
    metrics = (await server.ask("status", "GET", "/metrics")).body.decode()
    assert "\nencke_channels 0.0\n" in metrics
    assert "\nencke_busy_keys 0.0\n" in metrics


# -- tokens: stateless here, where the original had them made by an internal call


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens."""
    described = Server(tmp_path_factory.mktemp("guarded"), config=f'[auth]\nsecrets = ["{SECRET}"]\n')
    with running(described) as started:
        yield started


async def test_bad_token_is_refused_over_tcp(guarded: Server) -> None:
    peer = await Peer.connect(guarded.addresses["tcp"])
    try:
        await peer.send(recorded_bytes(VECTORS["auth_bad_token_after_push"]["request"]))
        assert await peer.read_to_end() == b"-a\r\n"
    finally:
        await peer.close()


async def test_bad_token_is_refused_over_websocket(guarded: Server) -> None:
    vector = VECTORS["ws_auth_bad_token"]
    peer = await Peer.connect(guarded.addresses["ws"])
    try:
        await peer.send(recorded_bytes(vector["request"]))
        assert_headers_kept(
            recorded_bytes(vector["response"]).partition(b"\r\n\r\n")[0], await read_head(peer)
        )
        end = await peer.read_to_end()
        assert end.startswith(b"\x81\x04-a\r\n")
        close_code(end[6:])
    finally:
        await peer.close()


async def test_good_token_is_accepted_as_often_as_it_is_shown(guarded: Server) -> None:
    token = mint(SECRET, Key("authk"), 4_000_000_000)
    for _ in range(2):
        async with guarded.tcp("authk", token=token) as subscriber:
            await subscriber.beat()
    refused = await subscribe_tcp(guarded.addresses["tcp"], "other", token=token)
    assert await refused.receive() == Line(b"-a\r\n")
    await refused.close()
