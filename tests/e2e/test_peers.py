"""Subscribers that others wrote: libraries for WebSocket and RESP, a browser with a page of the old kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import redis.connection
import redis.exceptions
import websocket
import websockets

from tests.support.browser import chromium, serve_page
from tests.support.system import Server, running

DEADLINE_S = 30
PAGE = Path(__file__).parent / "pages" / "old_sdk.html"
BEAT = "+h\r\n"
# A payload whose two shapes differ visibly, with characters that are escaped and some that are not.
PAYLOAD = {"text": "a<b> \u2028 é", "n": [1, 2.50]}


def url(server: Server, key: str, **parameters: str) -> str:
    host, port = server.addresses["ws"]
    return f"ws://{host}:{port}/sub?" + urlencode({"key": key, "heartbeat": "30", **parameters})


def assert_shapes(versioned: str | bytes, old: str | bytes) -> None:
    """The same message in both shapes."""
    new_shape, old_shape = json.loads(versioned), json.loads(old)
    assert new_shape["msg"] == PAYLOAD
    assert json.loads(old_shape["msg"]) == PAYLOAD
    assert new_shape["mid"] == old_shape["mid"]
    assert new_shape["gid"] == old_shape["gid"] == 0


async def test_websockets_library_subscribes_and_gets_both_shapes(server: Server) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        websockets.connect(url(server, "p1", ver="1.0")) as versioned,
        websockets.connect(url(server, "p1")) as old,
    ):
        assert await versioned.recv() == BEAT
        assert await old.recv() == BEAT
        await versioned.send("h")
        assert await versioned.recv() == BEAT
        await (await versioned.ping(b"alive"))
        assert await server.push("p1", PAYLOAD) == 0
        assert_shapes(await versioned.recv(), await old.recv())
        # It offers compression by default; none was agreed on.
        assert not versioned.protocol.extensions


async def test_websockets_library_sees_the_reason_of_a_close(server: Server) -> None:
    async with asyncio.timeout(DEADLINE_S), websockets.connect(url(server, "p2", ver="2")) as peer:
        assert await peer.recv() == BEAT
        await server.ask("admin", "POST", "/1/admin/msg/del?key=p2", b"")
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await peer.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4004


async def test_aiohttp_client_subscribes_and_gets_both_shapes(server: Server) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        aiohttp.ClientSession() as session,
        session.ws_connect(url(server, "p3", ver="1.0"), compress=15) as versioned,
        session.ws_connect(url(server, "p3")) as old,
    ):
        assert await versioned.receive_str() == BEAT
        assert await old.receive_str() == BEAT
        await versioned.send_bytes(b"h")
        assert await versioned.receive_str() == BEAT
        assert await server.push("p3", PAYLOAD) == 0
        assert_shapes(await versioned.receive_str(), await old.receive_str())


async def test_websocket_client_library_subscribes_and_gets_both_shapes(server: Server) -> None:
    def open_both() -> tuple[Any, Any]:
        versioned = websocket.create_connection(url(server, "p4", ver="1.0"), timeout=DEADLINE_S)
        old = websocket.create_connection(url(server, "p4"), timeout=DEADLINE_S)
        assert versioned.recv() == old.recv() == BEAT
        versioned.send("h")
        assert versioned.recv() == BEAT
        return versioned, old

    versioned, old = await asyncio.to_thread(open_both)
    try:
        assert await server.push("p4", PAYLOAD) == 0
        assert_shapes(await asyncio.to_thread(versioned.recv), await asyncio.to_thread(old.recv))
    finally:
        await asyncio.to_thread(versioned.close)
        await asyncio.to_thread(old.close)


def attach_parser(connection: Any) -> None:
    """All that redis-py does after connecting, without the commands that only Redis knows."""
    connection._parser.on_connect(connection)


class RedisPeer:
    """redis-py's connection and parser on the TCP port; its own handshake commands are off."""

    def __init__(self, server: Server, *arguments: str) -> None:
        host, port = server.addresses["tcp"]
        make: Any = redis.connection.Connection
        self._connection = make(
            host, port, socket_timeout=DEADLINE_S, protocol=2, redis_connect_func=attach_parser
        )
        self._connection.connect()
        self._connection.send_command("sub", *arguments, check_health=False)

    def read(self) -> Any:
        """A status (+h) or a bulk string, by the parser."""
        return self._connection.read_response(disconnect_on_error=False)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._connection.send_packed_command([b"h"], check_health=False)

    def close(self) -> None:
        """Close the socket."""
        self._connection.disconnect()


async def test_redis_library_reads_the_tcp_protocol(server: Server) -> None:
    def open_both() -> tuple[RedisPeer, RedisPeer]:
        versioned = RedisPeer(server, "p5", "30", "", "1.0")
        old = RedisPeer(server, "p5", "30")
        assert versioned.read() == old.read() == b"h"
        versioned.beat()
        assert versioned.read() == b"h"
        return versioned, old

    versioned, old = await asyncio.to_thread(open_both)
    try:
        for _ in range(3):
            assert await server.push("p5", PAYLOAD) == 0
            assert_shapes(await asyncio.to_thread(versioned.read), await asyncio.to_thread(old.read))
    finally:
        versioned.close()
        old.close()


async def test_redis_library_reads_a_refusal_as_an_error(server: Server) -> None:
    def refused() -> str:
        peer = RedisPeer(server, "p6", "29")
        try:
            with pytest.raises(redis.exceptions.ResponseError) as caught:
                peer.read()
            return str(caught.value)
        finally:
            peer.close()

    assert await asyncio.to_thread(refused) == "p"


# -- a browser


@pytest.fixture(scope="module")
def open_to_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose public API pages of every origin may read."""
    described = Server(tmp_path_factory.mktemp("open"), config='[web]\npublic_origins = ["*"]\n')
    with running(described) as started:
        yield started


async def test_page_of_the_old_sdk_subscribes_by_jsonp_and_websocket(
    open_to_pages: Server, tmp_path: Path
) -> None:
    server = open_to_pages
    assert await server.push("browser key", "stored", 600) == 0
    async with serve_page(PAGE) as page:
        query = urlencode({"key": "browser key", "api": address(server, "public")})
        async with chromium(f"http://{page.address}/?{query}", tmp_path / "profile"):
            told = await page.told_all({"fetched", "server", "stored", "beat"})
            assert told["fetched"] == 0
            assert told["server"]["data"]["server"] == address(server, "ws")
            assert [m["msg"] for m in told["stored"]["data"]["msgs"]] == ["stored"]

            assert await server.push("browser key", PAYLOAD) == 0
            live = await page.told("message")
            assert live["msg"] == PAYLOAD
            # Mids are exact and print exactly in JavaScript.
            assert live["mid"] > told["stored"]["data"]["msgs"][0]["mid"]
            assert live["mid"] % 80 == 0

            assert await server.push("browser key", "last", 600) == 0
            last = await page.told("message")
            assert last["mid"] == (await server.fetch("browser key"))[-1]["mid"]
            assert await page.told("beat") == 3


async def test_page_of_an_origin_that_is_not_listed_cannot_read_answers(
    server: Server, tmp_path: Path
) -> None:
    async with serve_page(PAGE) as page:
        query = urlencode({"key": "other", "api": address(server, "public")})
        async with chromium(f"http://{page.address}/?{query}", tmp_path / "profile"):
            assert await page.told("fetched") == "refused"


def address(server: Server, kind: str) -> str:
    host, port = server.addresses[kind]
    return f"{host}:{port}"
