"""Comet nodes of one cluster in the test's own process: one store, one registry, RPC between them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.contracts.comet import Push, PushReply
from cluster.members import Members
from cluster.model import Key, NodeName
from cluster.peers import CometPeers
from cluster.ring import Ring
from cluster.rpc.config import RpcConfig
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from comet.app import CometNode
from comet.config import CometConfig
from comet.pushing.forwarding import Forwarder
from message.fencing import Fencer
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.store import EmbeddedStore
from tests.support.comet import ANY_PORT, Comet
from tests.support.messages import BadWay
from tests.support.registry import LateView, ShakyRegistry
from tests.support.subscriber import TcpSubscriber, subscribe_tcp

ONE, TWO, THREE = "comet-1", "comet-2", "comet-3"


def keys_of(name: str, among: tuple[str, ...], before: tuple[str, ...] = ()) -> list[Key]:
    """Keys that go to a node among these; with `before` only those that went to its last node before."""
    ring = Ring({NodeName(one): 1 for one in among})
    earlier = Ring({NodeName(one): 1 for one in before})
    keys = [Key(f"key-{n}") for n in range(400)]
    return [
        key for key in keys if ring.owner(key) == name and (not before or earlier.owner(key) == before[-1])
    ]


class Nodes:
    """Nodes by name, each behind a bad way to the common store."""

    def __init__(self, store: EmbeddedStore, registry: ShakyRegistry, stack: AsyncExitStack) -> None:
        self.store = store
        self.registry = registry
        self.ways: dict[str, BadWay] = {}
        self.comets: dict[str, Comet] = {}
        self._stack = stack
        self._pushes = 0

    async def start(self, name: str, view: LateView | None = None, **settings: Any) -> CometNode:
        """Start a node; it joins. A view is what it sees of the registry."""
        registry = view or self.registry
        config = dataclasses.replace(
            CometConfig(),
            **{
                "name": name,
                "ws_bind": ANY_PORT,
                "tcp_bind": ANY_PORT,
                "rpc_bind": ANY_PORT,
                "linger_s": 0.5,
                **settings,
            },
        )
        members, stats = Members(registry), Stats()
        self._stack.callback(members.close)
        peers = CometPeers(members, RpcConfig(backoff_first_s=0.005, backoff_max_s=0.05))
        self._stack.push_async_callback(peers.stop)
        self.ways[name] = BadWay(self.store)
        node = CometNode(
            config,
            capacity=1000,
            instance=name,
            version="test",
            messages=self.ways[name],
            registry=registry,
            members=members,
            verifier=TokenVerifier(()),
            stats=stats,
            rpc=RpcConfig(),
            peers=peers.of,
        )
        self._stack.push_async_callback(node.stop)
        self.comets[name] = Comet(node, self.registry, stats)
        await node.start()
        return node

    def push(
        self, name: str, key: Key, value: Any, expire_s: int = 600, push_id: str = ""
    ) -> asyncio.Future[PushReply]:
        """Push to a key at a node, under that node's membership."""
        self._pushes += 1
        node = self.comets[name].node
        epoch = node._keys.ownership.holdings.epoch
        return node.push(
            Push(
                [key],
                json.dumps(value).encode(),
                expire_s,
                push_id or f"push-{self._pushes}",
                3600 if push_id else 0,
                10.0,
                epoch,
            )
        )

    async def subscribe(
        self, name: str, key: Key, *, mid: str | int = "", version: str = "2.0", device: str = ""
    ) -> TcpSubscriber:
        """A live subscriber at a node."""
        subscriber = await subscribe_tcp(self.comets[name].tcp, key, version=version, mid=mid, device=device)
        self._stack.push_async_callback(subscriber.close)
        await subscriber.open()
        return subscriber

    def counted(self, name: str, metric: str, label: str = "") -> float:
        """A counter or gauge of a node."""
        return self.comets[name].counted(metric, label)


@asynccontextmanager
async def running_nodes(data_dir: Path) -> AsyncIterator[Nodes]:
    """A cluster without comet nodes, which fences those that go."""
    store = EmbeddedStore(EmbeddedSettings(data_dir=str(data_dir)), Stats())
    await store.start()
    registry = ShakyRegistry(session_timeout_s=60.0)
    fencer = Fencer(registry, store)
    fencer.start()
    try:
        async with AsyncExitStack() as stack:
            yield Nodes(store, registry, stack)
    finally:
        await fencer.stop()
        await store.stop()


def forwarder_of(nodes: Nodes, name: str) -> Forwarder:
    """How a node reaches earlier owners of its keys."""
    forwarder = nodes.comets[name].node._keys.forwarder
    assert forwarder is not None
    return forwarder
