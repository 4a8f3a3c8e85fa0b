"""A small service and the two ends of its calls, for the tests of cluster/rpc."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from cluster.errors import EnckeError
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.handshake import Versions
from cluster.rpc.methods import Method, Route
from cluster.rpc.metrics import ClientMetrics
from cluster.rpc.server import RpcServer
from cluster.stats import Stats
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy

SERVICE = "test"

ECHO = Method(1, "echo", tuple[bytes], bytes, is_read=True)
# Answered when the test says so; the handler returns a future.
CHANGE = Method(2, "change", tuple[str], str)
# Likewise; the handler is a coroutine.
LOOK = Method(3, "look", tuple[str], str, is_read=True)
FAIL = Method(4, "fail", tuple[str], str)
UNKNOWN = Method(99, "unknown", tuple[()], str, is_read=True)
MISTYPED = Method(1, "mistyped", tuple[int], bytes, is_read=True)
NEW = Method(2, "new", tuple[str], str, since=2)

# Long enough for a busy machine; nothing waits for it when all is well.
PLENTY_S = 20.0

QUICK = RpcConfig(backoff_first_s=0.005, backoff_max_s=0.05)
# Notices silence soon.
ALERT = replace(QUICK, ping_interval_s=0.05, silence_s=0.25)


class Service:
    """What is called."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[str]] = {}
        self.cancelled: list[str] = []
        self.failures: dict[str, Exception] = {}

    def routes(self) -> list[Route]:
        return [
            Route(ECHO, self.echo),
            Route(CHANGE, self.change),
            Route(LOOK, self.look),
            Route(FAIL, self.fail),
        ]

    async def echo(self, data: bytes) -> bytes:
        return data

    def change(self, name: str) -> asyncio.Future[str]:
        future = self.waiting[name] = asyncio.get_running_loop().create_future()
        return future

    async def look(self, name: str) -> str:
        try:
            return await self.change(name)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    def fail(self, name: str) -> asyncio.Future[str]:
        raise self.failures[name]

    async def called(self, name: str) -> asyncio.Future[str]:
        """Wait until CHANGE or LOOK was called with this name."""
        await eventually(lambda: name in self.waiting)
        return self.waiting[name]


class Pair:
    """A server, a client, and what stands between them."""

    def __init__(self, service: Service, server: RpcServer, client: RpcClient, proxy: FaultProxy) -> None:
        self.service = service
        self.server = server
        self.client = client
        self.proxy = proxy

    async def up(self) -> Pair:
        """Wait for the connection."""
        await eventually(lambda: self.client.is_up)
        return self

    def call(self, method: Method[Any], *arguments: Any, timeout_s: float = PLENTY_S) -> asyncio.Future[Any]:
        return self.client.call(method, arguments, timeout_s)


@asynccontextmanager
async def pair(
    config: RpcConfig = QUICK,
    *,
    server_config: RpcConfig | None = None,
    versions: Versions | None = None,
    server_versions: Versions | None = None,
    is_started: bool = True,
    client_stats: Stats | None = None,
    server_stats: Stats | None = None,
) -> AsyncIterator[Pair]:
    """Two ends with a fault proxy between them; stopped at the end."""
    service = Service()
    server = RpcServer(SERVICE, service.routes(), server_config or config, server_versions, server_stats)
    await server.start()
    proxy = FaultProxy(server.address)
    await proxy.start()
    metrics = ClientMetrics(client_stats or Stats())
    client = RpcClient(proxy.address, SERVICE, config, versions, metrics)
    if is_started:
        client.start()
    try:
        yield Pair(service, server, client, proxy)
    finally:
        await client.stop()
        await proxy.stop()
        await server.stop(0.0)


async def error_of(future: asyncio.Future[Any]) -> EnckeError:
    """The error that a call ends with."""
    try:
        await asyncio.wait_for(future, PLENTY_S * 2)
    except EnckeError as error:
        return error
    raise AssertionError("the call succeeded")
