"""A server of which the test says every word: what a real one does only once in a month.

Real sockets, none of the product's code. It answers /1/server/get, /1/time/get
and /1/msg/get and hands each subscriber's connection to the test's script.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import websockets
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

ARGUMENTS = ("sub", "key", "heartbeat", "token", "ver", "mid", "dev")


class Connection(Protocol):
    """One subscriber's connection, the test's end of it."""

    # Arguments of the subscription by their WebSocket names; absent = not given.
    request: dict[str, str]

    async def say(self, word: str) -> None:
        """Send a line (without CRLF) or a JSON document."""
        ...

    async def hear(self) -> str:
        """The next thing the subscriber says: "h" or "a<MID>"; "" = it has ended."""
        ...

    async def end(self, code: int, reason: str = "") -> None:
        """Say why, and close."""
        ...

    def cut(self) -> None:
        """Reset the connection without a word."""
        ...


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class ScriptedServer:
    """What it says over HTTP may be changed at any time."""

    script: Script
    url: str = ""
    now: int = 1_000_000
    # Answers of /1/server/get and /1/msg/get that replace the usual ones: status and body.
    server_answer: tuple[int, str] | None = None
    stored: list[dict[str, Any]] = field(default_factory=list)
    # Requests of subscriptions, in order.
    requests: list[dict[str, str]] = field(default_factory=list)
    lookups: int = 0
    ports: dict[str, int] = field(default_factory=dict)

    async def converse(self, connection: Connection) -> None:
        """Run the script for one connection, then end it."""
        self.requests.append(connection.request)
        with contextlib.suppress(ConnectionError, websockets.ConnectionClosed):
            await self.script(connection)
        connection.cut()

    async def server_get(self, request: web.Request) -> web.Response:
        self.lookups += 1
        if self.server_answer is not None:
            status, body = self.server_answer
            return web.Response(status=status, text=body)
        port = self.ports[request.query["p"]]
        return web.json_response({"data": {"server": f"127.0.0.1:{port}"}, "ret": 0})

    async def time_get(self, request: web.Request) -> web.Response:
        return web.json_response({"data": {"timeid": self.now}, "ret": 0})

    async def msg_get(self, request: web.Request) -> web.Response:
        after = int(request.query["m"])
        found = [item for item in self.stored if item["mid"] > after]
        return web.json_response({"data": {"msgs": found}, "ret": 0} if found else {"ret": 0})


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedServer]:
    """Run a server on free loopback ports."""
    server = ScriptedServer(script)
    app = web.Application()
    app.router.add_get("/1/server/get", server.server_get)
    app.router.add_get("/1/time/get", server.time_get)
    app.router.add_get("/1/msg/get", server.msg_get)
    async with contextlib.AsyncExitStack() as stack:
        server.url = await stack.enter_async_context(serving_http(app))
        ws = await stack.enter_async_context(
            serve(
                lambda c: server.converse(_WebSocket(c)), "127.0.0.1", 0, close_timeout=1, ping_interval=None
            )
        )
        tasks: set[asyncio.Task[None]] = set()
        tcp = await asyncio.start_server(lambda r, w: _tcp(server, r, w, tasks), "127.0.0.1", 0)
        server.ports = {"1": _port(ws.sockets), "2": _port(tcp.sockets)}
        try:
            yield server
        finally:
            tcp.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving_http(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free loopback port; gives its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, lingering_time=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def message(mid: int, value: object = None) -> str:
    """The document of one message."""
    return json.dumps({"msg": mid if value is None else value, "mid": mid, "gid": 0})


def _port(sockets: Any) -> int:
    port = next(iter(sockets)).getsockname()[1]
    assert isinstance(port, int)
    return port


def _tcp(
    server: ScriptedServer,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tasks: set[asyncio.Task[None]],
) -> None:
    async def converse() -> None:
        try:
            await server.converse(await _Tcp.accept(reader, writer))
        finally:
            writer.close()

    task = asyncio.create_task(converse())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


class _WebSocket:
    def __init__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.request = dict(parse_qsl(urlsplit(connection.request.path).query))
        self._connection = connection

    async def say(self, word: str) -> None:
        await self._connection.send(word if word.startswith("{") else word + "\r\n")

    async def hear(self) -> str:
        try:
            word = await self._connection.recv()
        except websockets.ConnectionClosed:
            return ""
        return word if isinstance(word, str) else word.decode()

    async def end(self, code: int, reason: str = "") -> None:
        await self._connection.close(code, reason)

    def cut(self) -> None:
        self._connection.transport.abort()


class _Tcp:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, str]
    ) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer

    @classmethod
    async def accept(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Tcp:
        count = int((await reader.readline())[1:])
        words = []
        for _ in range(count):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2].decode())
        named = zip(ARGUMENTS, words, strict=False)
        return cls(reader, writer, {name: word for name, word in named if word and name != "sub"})

    async def say(self, word: str) -> None:
        data = word.encode()
        framed = b"$%d\r\n%b\r\n" % (len(data), data) if word.startswith("{") else data + b"\r\n"
        self._writer.write(framed)
        await self._writer.drain()

    async def hear(self) -> str:
        try:
            first = await self._reader.readexactly(1)
            if first == b"h":
                return "h"
            return (first + (await self._reader.readuntil(b"\r\n"))[:-2]).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""

    async def end(self, code: int, reason: str = "") -> None:
        self._writer.write(f"-{code} {reason}\r\n".encode())
        self._writer.write_eof()
        await self._reader.read()

    def cut(self) -> None:
        self._writer.transport.abort()
