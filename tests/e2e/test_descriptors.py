"""File descriptors run out: who is connected stays, who comes is cut, and it passes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.peer import Peer
from tests.support.subscriber import command
from tests.support.system import Server, running

LIMIT = 96
MORE = 200
HTTP_LIMIT = 300


async def test_flood_of_connections_does_not_disturb_those_that_are_in(tmp_path: Path) -> None:
    with running(Server(tmp_path, descriptor_limit=LIMIT)) as server:
        async with server.tcp("in", version="2") as tcp, server.websocket("in") as websocket:
            async with contextlib.AsyncExitStack() as stack:
                for number in range(MORE):
                    peer = await Peer.connect(server.addresses["tcp" if number % 2 else "ws"])
                    stack.push_async_callback(peer.close)
                    with contextlib.suppress(ConnectionError):
                        await peer.send(command("sub", f"flood{number}", "30") if number % 2 else b"GET ")
                await tcp.beat()
                await websocket.beat()
                assert server.is_running
            # The flood has gone: there is room again, for HTTP too.
            await eventually_serving(server)
            assert await server.push("in", "after", 600) == 0
            assert (await tcp.next_document()).value["msg"] == "after"
            await websocket.next_document()
        async with server.tcp("new") as late:
            await late.beat()


@pytest.mark.parametrize("kind", ["public", "admin"])
async def test_idle_http_connections_leave_room_for_everybody_else(tmp_path: Path, kind: str) -> None:
    with running(Server(tmp_path, descriptor_limit=HTTP_LIMIT)) as server:
        assert "the limit of open files (ulimit -n) is too low" in server.log
        async with server.tcp("in") as tcp, contextlib.AsyncExitStack() as stack:
            for _ in range(HTTP_LIMIT + 20):
                peer = await Peer.connect(server.addresses[kind])
                stack.push_async_callback(peer.close)
            assert (await server.ask("status", "GET", "/healthz")).status == 200
            other = "admin" if kind == "public" else "public"
            assert (await server.ask(other, "GET", "/1/none")).status == 404
            async with server.websocket("new") as websocket:
                await websocket.beat()
            await tcp.beat()
        assert server.log.count("connections of the " + kind + " API, more are closed at once") == 1


async def eventually_serving(server: Server) -> None:
    results: list[int] = []
    for _ in range(100):
        with contextlib.suppress(ConnectionError, TimeoutError):
            results.append((await server.ask("status", "GET", "/readyz")).status)
        if results[-1:] == [200]:
            return
    await eventually(lambda: results[-1:] == [200], 0)
