"""The recorded pushes, replayed: what subscribers of each kind get, what is stored; and who may subscribe.

How they are compared: test_vectors.py.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from cluster.model import Key
from cluster.tokens import mint
from tests.e2e import vector_differences as differences
from tests.e2e.recording import (
    VECTORS,
    assert_headers_kept,
    close_code,
    names,
    read_head,
    recorded_bytes,
    what_arrives,
    without_mids,
)
from tests.support.http import HttpClient
from tests.support.peer import Peer
from tests.support.subscriber import Line, subscribe_tcp
from tests.support.system import Server, running

SECRET = "s3cret"


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
    assert "\nencke_channels 0\n" in metrics
    assert "\nencke_busy_keys 0\n" in metrics


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
