"""What a node process says on /readyz while it cannot serve, and why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from cluster.addresses import split_address
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistration, MemoryRegistry
from cluster.rpc.server import RpcServer
from cluster.service import ServiceTasks
from cluster.stats import Stats
from comet.config import CometConfig
from encke.config import load_config
from encke.nodes import NodeProcess
from tests.cluster.rpc_nodes import QUICK
from tests.support.eventually import eventually, eventually_told
from tests.support.http import HttpClient
from tests.support.servers import free_port
from tests.support.stats import counted
from web.config import WebConfig


class OwnRegistry(MemoryRegistry):
    """Reaches nobody beyond this process."""

    fault: str | None = None

    def __init__(self) -> None:
        super().__init__()
        # Set while it takes what is announced.
        self.takes = asyncio.Event()
        self.takes.set()

    async def register(self, info: NodeInfo) -> MemoryRegistration:
        await self.takes.wait()
        return await super().register(info)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Process:
    """A node process, and the registry that it is started with."""

    def __init__(self, kind: NodeKind, registry: OwnRegistry, secret: str) -> None:
        self._stats = Stats()
        self._status = f"127.0.0.1:{free_port()}"
        free = "127.0.0.1:0"
        config = replace(
            load_config(None),
            web=WebConfig(public_bind=free, admin_bind=free, status_bind=self._status),
            comet=CometConfig(status_bind=self._status),
            rpc=replace(QUICK, secret=secret),
        )
        self._process = NodeProcess(kind, config, self._stats, lambda _: None, registry)
        tasks = ServiceTasks(asyncio.TaskGroup(), asyncio.Event())
        self.starting = asyncio.create_task(self._process.start(tasks))

    @property
    def has_peer(self) -> bool:
        """Connected to one that takes calls."""
        return counted(self._stats, "rpc_client_connections", "comet") == 1

    async def readiness(self) -> str:
        """What the first line of /readyz says."""
        client = HttpClient(split_address(self._status))
        try:
            return (await client.request("GET", "/readyz")).body.decode().partition("\n")[0]
        except ConnectionError:
            return ""
        finally:
            await client.close()

    async def stop(self) -> None:
        self.starting.cancel()
        await asyncio.gather(self.starting, return_exceptions=True)
        await self._process.stop()


@asynccontextmanager
async def running(kind: NodeKind, registry: OwnRegistry, secret: str) -> AsyncIterator[Process]:
    """Start a process, and stop it at the end; nobody waits until it is ready."""
    process = Process(kind, registry, secret)
    try:
        yield process
    finally:
        await process.stop()


@asynccontextmanager
async def peer(bind: str, secret: str, kind: NodeKind = NodeKind.COMET) -> AsyncIterator[RpcServer]:
    """A node without methods; the handshake is all that counts."""
    server = RpcServer(kind.value, [], replace(QUICK, secret=secret))
    await server.start(bind)
    try:
        yield server
    finally:
        await server.stop(0.0)


def entry(bind: str, kind: NodeKind = NodeKind.COMET) -> NodeInfo:
    return NodeInfo(kind, NodeName("comet-1"), "a", {"rpc": (bind,)})


async def says(process: Process, text: str) -> None:
    """Wait until /readyz says this."""

    async def is_said() -> bool:
        return text in await process.readiness()

    await eventually_told(is_said)


async def test_web_node_with_a_wrong_secret_serves_nobody_before_a_peer_lets_it_in() -> None:
    registry = OwnRegistry()
    bind = f"127.0.0.1:{free_port()}"
    await registry.register(entry(bind))
    async with running(NodeKind.WEB, registry, "wrong") as web:
        async with peer(bind, "right"):
            await says(
                web,
                f"no comet or message node takes calls: {bind}: refused by the peer: wrong shared secret",
            )
            assert not web.starting.done()
        # As if it had been started with the right one.
        async with peer(bind, "wrong"):
            await web.starting
            assert await web.readiness() == "ready"


async def test_web_node_whom_all_peers_begin_to_refuse_is_not_ready_until_one_does_not() -> None:
    registry = OwnRegistry()
    bind = f"127.0.0.1:{free_port()}"
    async with running(NodeKind.WEB, registry, "old") as web:
        await web.starting
        await registry.register(entry(bind))
        async with peer(bind, "new"):
            await says(web, "wrong shared secret")
        async with peer(bind, "old"):
            await says(web, "ready")


async def test_web_node_stays_ready_while_its_peers_are_away() -> None:
    registry = OwnRegistry()
    bind = f"127.0.0.1:{free_port()}"
    registration = await registry.register(entry(bind))
    # Also one that is started then.
    async with running(NodeKind.WEB, registry, "s") as web:
        await web.starting
        assert await web.readiness() == "ready"
        async with peer(bind, "s"):
            await eventually(lambda: web.has_peer)
        await eventually(lambda: not web.has_peer)
        assert await web.readiness() == "ready"
        await registration.withdraw()
        assert await web.readiness() == "ready"


async def test_comet_node_that_waits_for_a_message_node_says_why() -> None:
    registry = OwnRegistry()
    bind = f"127.0.0.1:{free_port()}"
    async with running(NodeKind.COMET, registry, "wrong") as comet:
        await says(comet, "starting: waiting for a message node: ")
        await registry.register(entry(bind, NodeKind.MESSAGE))
        async with peer(bind, "right", NodeKind.MESSAGE):
            refusal = f"{bind}: refused by the peer: wrong shared secret"
            await says(comet, f"starting: waiting for a message node: {refusal}")


async def test_node_that_the_registry_does_not_take_says_why() -> None:
    registry = OwnRegistry()
    registry.takes.clear()
    async with running(NodeKind.WEB, registry, "s") as web:
        await says(web, "starting")
        registry.fault = "not announced: it is full"
        assert await web.readiness() == "starting: not announced: it is full"
        registry.takes.set()
        await web.starting
        # Of no concern to who is registered.
        assert await web.readiness() == "ready"
