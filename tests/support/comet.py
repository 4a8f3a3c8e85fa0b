"""A real comet node in the test's own process and loop, with the embedded store, on free loopback ports."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.contracts.comet import Push
from cluster.contracts.message import MessageService
from cluster.members import Members
from cluster.model import Key, Mid
from cluster.registry.memory import MemoryRegistry
from cluster.rpc.config import RpcConfig
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from comet.app import CometNode
from comet.config import CometConfig
from comet.sockets.listener import Listener
from comet.sockets.poller import READABLE
from comet.sockets.transport import SocketTransport
from comet.subscribers.connection import Connection
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.store import EmbeddedStore
from tests.support.peer import Address
from tests.support.stats import counted

ANY_PORT = "127.0.0.1:0"


class Comet:
    """What a test does with the node."""

    def __init__(self, node: CometNode, registry: MemoryRegistry, stats: Stats) -> None:
        self.node = node
        # Another node that is registered here takes keys away.
        self.registry = registry
        self._stats = stats
        self._pushes = 0

    @property
    def tcp(self) -> Address:
        """Where raw TCP subscribers connect."""
        return self._address("tcp")

    @property
    def ws(self) -> Address:
        """Where WebSocket subscribers connect."""
        return self._address("ws")

    @property
    def open_sockets(self) -> int:
        """Sockets of subscribers in whatever state."""
        return self.node._sockets.count

    @property
    def is_draining(self) -> bool:
        """Whether who comes now is sent elsewhere."""
        return self.node._reception._is_draining

    def owns(self, key: str) -> bool:
        """Whether the ring gives it the key."""
        return self.node._keys.ownership.owns(Key(key))

    def connections(self, key: str) -> list[Connection]:
        """The connections of a key, in order of arrival."""
        channel = self.node._hub.channel(Key(key))
        return [] if channel is None else channel.connections()

    def transport(self, key: str) -> SocketTransport:
        """What carries the only connection of a key."""
        (connection,) = self.connections(key)
        transport = connection._transport
        assert isinstance(transport, SocketTransport)
        return transport

    def is_reading(self, key: str) -> bool:
        """Whether the only connection of a key is read from."""
        return bool(self.transport(key)._mask & READABLE)

    def listener(self, purpose: str) -> Listener:
        """Of "tcp" or "ws"."""
        return self.node._listeners[purpose]

    async def push(self, key: str, payload: bytes, expire_s: int = 0) -> Mid:
        """Push to one key; the settled mid."""
        self._pushes += 1
        reply = await self.node.push(
            Push([Key(key)], payload, expire_s, f"test-{self._pushes}", 0, 5.0, epoch=(0, 0))
        )
        assert not reply.failed, reply.failed
        return reply.mids[0]

    def counted(self, name: str, label: str = "") -> float:
        """A counter or gauge, by the value of its label."""
        return counted(self._stats, name, label)

    def _address(self, purpose: str) -> Address:
        host, _, port = self.node.addresses[purpose].rpartition(":")
        return host, int(port)


@asynccontextmanager
async def running_comet(
    data_dir: Path,
    *,
    secrets: tuple[str, ...] = (),
    capacity: int = 1000,
    way: Callable[[MessageService], MessageService] = lambda store: store,
    registry: MemoryRegistry | None = None,
    rpc: RpcConfig | None = None,
    **settings: Any,
) -> AsyncIterator[Comet]:
    """Run a node; settings are those of CometConfig.

    Args:
        way: what stands between the node and its store, e.g. something that loses answers.
        registry: shared with other nodes, or one that fails.
        rpc: others call it over TCP; None = it is the only node, as in `encke serve`.
    """
    config = dataclasses.replace(
        CometConfig(),
        **{"ws_bind": ANY_PORT, "tcp_bind": ANY_PORT, "rpc_bind": ANY_PORT, "linger_s": 0.5, **settings},
    )
    stats = Stats()
    store = EmbeddedStore(EmbeddedSettings(data_dir=str(data_dir)), stats)
    await store.start()
    try:
        registry = registry or MemoryRegistry()
        members = Members(registry)
        node = CometNode(
            config,
            capacity=capacity,
            instance="test",
            version="test",
            messages=way(store),
            registry=registry,
            members=members,
            verifier=TokenVerifier(secrets),
            stats=stats,
            rpc=rpc,
        )
        try:
            await node.start()
            yield Comet(node, registry, stats)
        finally:
            await node.stop()
            members.close()
    finally:
        await store.stop()
