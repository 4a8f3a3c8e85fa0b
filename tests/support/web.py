"""A real web node in the test's own process and loop, on free loopback ports."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cluster.contracts.comet import CometService
from cluster.contracts.message import MessageNodeService, MessageService
from cluster.contracts.web_http import WebStub
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.peers import NodeServices
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from comet.app import CometNode
from comet.config import CometConfig
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.store import EmbeddedStore
from tests.support.http import HttpClient, Response
from tests.support.peer import Address
from tests.support.services import ScriptedMessageNode
from tests.support.stats import counted
from web.app import WebNode
from web.config import WebConfig
from web.serving.connection import Connection
from web.serving.listener import Listener


class Web:
    """What a test does with the node."""

    def __init__(self, node: WebNode, registry: MemoryRegistry, stats: Stats) -> None:
        self.node = node
        self.registry = registry
        self._stats = stats
        self._clients: dict[str, HttpClient] = {}

    @property
    def admin_listener(self) -> Listener:
        """Of the admin API: its connections, and what is in progress on them."""
        return self.node._admin

    def connections(self) -> list[Connection]:
        """The open connections to the admin API."""
        server = self.admin_listener._web_server
        assert server is not None
        return [one for one in server.connections if isinstance(one, Connection)]

    def address(self, listener: str) -> Address:
        """Where "public" or "admin" is bound."""
        host, _, port = self.node.addresses[listener].rpartition(":")
        return host, int(port)

    async def ask(
        self,
        listener: str,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """A request on the kept connection to a listener."""
        client = self._clients.setdefault(listener, HttpClient(self.address(listener)))
        return await client.request(method, target, body, headers)

    async def get(self, target: str, headers: dict[str, str] | None = None) -> Response:
        """GET from the public listener."""
        return await self.ask("public", "GET", target, headers=headers)

    async def admin(self, method: str, target: str, body: bytes | None = None) -> Response:
        """A request to the admin listener."""
        return await self.ask("admin", method, target, body)

    async def push(self, key: str, payload: bytes = b"1", expire_s: int = 0) -> Response:
        """Push by the compatible API."""
        query = urlencode({"key": key, "expire": expire_s})
        return await self.admin("POST", f"/1/admin/push/private?{query}", payload)

    def counted(self, name: str, label: str = "") -> float:
        """A counter or gauge, by the value of its label."""
        return counted(self._stats, name, label)

    async def close(self) -> None:
        """Close the kept connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


@asynccontextmanager
async def running_web(
    comets: dict[str, CometService],
    messages: MessageService,
    *,
    secrets: tuple[str, ...] = (),
    registry: MemoryRegistry | None = None,
    may_lose_answers: bool = True,
    **settings: Any,
) -> AsyncIterator[Web]:
    """Run a node in front of these comet nodes (by name); settings are those of WebConfig."""
    registry = registry or MemoryRegistry()
    for name in comets:
        await registry.register(comet_info(name))
    members = Members(registry)
    stats = Stats()
    services = NodeServices(lambda info: comets[info.name], _message_node, WebStub)
    node = _node(
        settings, messages, registry, members, services, secrets, stats, may_lose_answers=may_lose_answers
    )
    web = Web(node, registry, stats)
    try:
        await node.start()
        yield web
    finally:
        await web.close()
        await node.stop()
        members.close()


@asynccontextmanager
async def running_system(
    data_dir: Path, *, secrets: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[Web]:
    """Run a node in front of a real comet node and the embedded store."""
    stats = Stats()
    store = EmbeddedStore(EmbeddedSettings(data_dir=str(data_dir), durability="os"), stats)
    await store.start()
    registry = MemoryRegistry()
    members = Members(registry)
    verifier = TokenVerifier(secrets)
    comet = CometNode(
        CometConfig(ws_bind="127.0.0.1:0", tcp_bind="127.0.0.1:0", linger_s=0.2),
        capacity=100,
        instance="comet",
        version="test",
        messages=store,
        registry=registry,
        members=members,
        verifier=verifier,
        stats=stats,
    )
    try:
        await comet.start()
        services = NodeServices(lambda _: comet, _message_node, WebStub)
        node = _node(settings, store, registry, members, services, secrets, stats)
        web = Web(node, registry, stats)
        try:
            await node.start()
            yield web
        finally:
            await web.close()
            await node.stop()
    finally:
        await comet.stop()
        members.close()
        await store.stop()


def _message_node(_: NodeInfo) -> MessageNodeService:
    return ScriptedMessageNode()


def comet_info(name: str, **fields: Any) -> NodeInfo:
    """A comet node as it announces itself."""
    addresses = {"ws": (f"{name}.example:6968",), "tcp": (f"{name}.example:6969",)}
    return NodeInfo(NodeKind.COMET, NodeName(name), **{"instance": name, "addresses": addresses, **fields})


def _node(
    settings: dict[str, Any],
    messages: MessageService,
    registry: MemoryRegistry,
    members: Members,
    services: NodeServices,
    secrets: tuple[str, ...],
    stats: Stats,
    *,
    may_lose_answers: bool = True,
) -> WebNode:
    config = dataclasses.replace(
        WebConfig(), **{"public_bind": "127.0.0.1:0", "admin_bind": "127.0.0.1:0", **settings}
    )
    return WebNode(
        config,
        capacity=config.max_connections,
        instance="web",
        version="test",
        messages=messages,
        registry=registry,
        members=members,
        services=services,
        verifier=TokenVerifier(secrets),
        stats=stats,
        may_lose_answers=may_lose_answers,
    )
