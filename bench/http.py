"""CPU of the HTTP part of a push: POST /1/admin/push/private on keep-alive connections.

A web node with a comet service that answers at once is asked by 64
connections, one request in flight on each, from another process; printed is
the CPU time of this process per request, by the short way (web/quick/quick.py) and
by the usual one. Then the bulk parts alone: keys of a push to many, and the
canonical form of a payload.

    python -m bench.http [--requests 30000] [--connections 64] [--profile]

On two shared cores that had other work too (Python 3.11, aiohttp 3.14): 8.5 us
for reads and writes alone, 43 by the short way, 65 by the usual one; 0.2 us a
key of a push to many, 1.8 us for a small payload. Called again and again
without a network in between, the short way takes 13 us: most of the rest is
what it costs to be called once in a while. With aiohttp's own Request and
Response the usual way took 35 us more.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import resource
import sys
import time
import timeit
from typing import NoReturn, cast

import msgspec
import uvloop

from cluster.contracts.comet import CometStatus, ConnectionInfo, Push, PushReply
from cluster.contracts.message import MessageService
from cluster.members import Members
from cluster.model import Epoch, Key, Mid, NodeInfo, NodeKind, NodeName
from cluster.peers import NodeServices
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from encke.commands.arguments import Parser
from web.app import WebNode
from web.codec.params import BodyParser
from web.codec.payload import canonical
from web.config import WebConfig

PAYLOAD = b'{"n":1,"text":"hello there"}'


class InstantComet:
    """Answers every push before the call returns, as a comet node does with expire 0."""

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        future: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
        size = len(push.keys)
        future.set_result(PushReply([Mid(80)] * size, [1] * size, [], []))
        return future

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        return 0

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        return []

    async def status(self) -> CometStatus:
        return CometStatus(0, 0, 0)


class _Floor(asyncio.Protocol):
    """Answers without looking: what no server on this loop and kernel can do without."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"ret":0}')


class _Client(asyncio.Protocol):
    """Sends its request again and again until the common count is used up."""

    def __init__(self, number: int, is_usual: bool, left: list[int], done: asyncio.Event) -> None:
        # Shared with the others: requests still to be sent, and answers to those in flight.
        self._left = left
        self._done = done
        self._request = (
            b"POST /1/admin/push/private?key=key-%d&expire=0 HTTP/1.1\r\nHost: 127.0.0.1:8091\r\n"
            b"%bContent-Length: %d\r\n\r\n%b"
            % (number, b"TE: trailers\r\n" if is_usual else b"", len(PAYLOAD), PAYLOAD)
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b'{"ret":0}'), data
        self._next()

    def _next(self) -> None:
        self._left[0] -= 1
        if self._left[0] >= 0:
            self._transport.write(self._request)
        elif self._left[0] == -1:
            self._done.set()


async def load(port: int, requests: int, connections: int, is_usual: bool) -> None:
    """Be the clients.

    Args:
        is_usual: send a header that the short way does not take.
    """
    loop = asyncio.get_running_loop()
    left = [requests + connections - 1]
    done = asyncio.Event()
    for number in range(connections):
        await loop.create_connection(lambda n=number: _Client(n, is_usual, left, done), "127.0.0.1", port)  # type: ignore[misc]
    await done.wait()


def _no_service(_: NodeInfo) -> NoReturn:
    raise AssertionError("nobody asks for the node listing")


async def serve(requests: int, connections: int, is_profiled: bool) -> None:
    """Be the server, and measure."""
    registry = MemoryRegistry()
    await registry.register(NodeInfo(NodeKind.COMET, NodeName("comet-1"), "1", {}))
    comet = InstantComet()
    members = Members(registry)
    node = WebNode(
        WebConfig(public_bind="127.0.0.1:0", admin_bind="127.0.0.1:0"),
        capacity=2 * connections,
        instance="2",
        version="",
        messages=_no_messages(),
        registry=registry,
        members=members,
        services=NodeServices(lambda _: comet, _no_service, _no_service),
        verifier=TokenVerifier(()),
        stats=Stats(),
    )
    await node.start()
    port = node.addresses["admin"].rpartition(":")[2]
    floor = await asyncio.get_running_loop().create_server(_Floor, "127.0.0.1", 0)
    floor_port = str(floor.sockets[0].getsockname()[1])
    await _measure("reads and writes alone", floor_port, requests, connections, False, is_profiled)
    await _measure("push/private, the short way", port, requests, connections, False, is_profiled)
    await _measure("push/private, the usual way", port, requests, connections, True, is_profiled)
    floor.close()
    await node.stop()
    members.close()


async def _measure(
    name: str, port: str, requests: int, connections: int, is_usual: bool, is_profiled: bool
) -> None:
    await _run_load(port, requests // 10, connections, is_usual)
    profile = cProfile.Profile(time.thread_time)
    if is_profiled:
        profile.enable()
    before_s = _cpu_s()
    await _run_load(port, requests, connections, is_usual)
    cpu_us = (_cpu_s() - before_s) / requests * 1e6
    if is_profiled:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    print(f"{name}: {cpu_us:.1f} us of CPU a request")


async def _run_load(port: str, requests: int, connections: int, is_usual: bool) -> None:
    command = [sys.executable, "-m", "bench.http", "--load", port]
    command += ["--requests", str(requests), "--connections", str(connections)]
    process = await asyncio.create_subprocess_exec(*command, *(["--usual"] if is_usual else []))
    assert await process.wait() == 0


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _no_messages() -> MessageService:
    # Nothing here reads or saves.
    return None  # type: ignore[return-value]


def bulk() -> None:
    """Measure the parts that grow with the request."""
    keys = ",".join(f"user-{n}" for n in range(10_000))
    body = msgspec.json.encode({"m": "{}", "k": keys})
    parser = BodyParser(100_000)
    many_us = min(timeit.repeat(lambda: parser.many(body, 0), number=10, repeat=5)) / 10 / 10_000 * 1e6
    print(f"mprivate, keys and JSON: {many_us:.2f} us a key")
    json_us = min(timeit.repeat(lambda: canonical(PAYLOAD, 1 << 20), number=20_000, repeat=5)) / 20_000 * 1e6
    print(f"canonical form: {json_us:.2f} us for {len(PAYLOAD)} bytes")


def main() -> None:
    """Run the measurement, or the client of it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--load", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--usual", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        uvloop.run(load(args.load, args.requests, args.connections, args.usual))
        return
    uvloop.run(serve(args.requests, args.connections, args.profile))
    bulk()


if __name__ == "__main__":
    main()
