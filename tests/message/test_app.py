"""The life of a message node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from cluster.contracts.message import Outcome
from cluster.contracts.message_rpc import MessageTimeouts
from cluster.errors import ConfigError, InDoubtError, NotOwnerError, RequestError, UnavailableError
from cluster.members import Members
from cluster.model import Key, NodeInfo, NodeKind, NodeName
from cluster.peers import MessagePeers
from cluster.registry.base import SessionState, Snapshot
from cluster.registry.memory import MemoryRegistry
from cluster.rpc.config import RpcConfig
from cluster.rpc.metrics import ClientMetrics
from cluster.stats import Stats
from message.app import MessageNode
from message.config import MessageConfig
from message.storage.base import MessageStore
from message.storage.build import build_redis_store
from message.storage.embedded.store import EmbeddedStore
from message.storage.redis.config import RedisSettings
from tests.message.storage.saving import BOB, batch_of
from tests.message.storage.stores import limits_with
from tests.support.eventually import eventually, eventually_told
from tests.support.registry import ShakyRegistry
from tests.support.servers import RedisServer


def make_node(
    registry: MemoryRegistry,
    data_dir: Path,
    rpc: RpcConfig | None,
    store: MessageStore | None = None,
    metrics: ClientMetrics | None = None,
) -> MessageNode:
    config = MessageConfig(data_dir=str(data_dir), rpc_bind="127.0.0.1:0")
    if store is not None:
        config = replace(config, store="redis")
    return MessageNode(
        config,
        store=store or EmbeddedStore(config, Stats()),
        instance=str(data_dir),
        version="test",
        registry=registry,
        members=Members(registry),
        stats=Stats(),
        rpc=rpc,
        metrics=metrics,
    )


@asynccontextmanager
async def running(
    registry: MemoryRegistry, data_dir: Path, rpc: RpcConfig | None = None
) -> AsyncIterator[MessageNode]:
    node = make_node(registry, data_dir, rpc)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


@asynccontextmanager
async def calling(
    registry: MemoryRegistry, data_dir: Path
) -> AsyncIterator[tuple[MessageNode, MessagePeers]]:
    """A node, and the way to it."""
    async with running(registry, data_dir, RpcConfig()) as node:
        peers = MessagePeers(Members(registry), RpcConfig(), MessageTimeouts())
        try:
            yield node, peers
        finally:
            await peers.stop()


async def test_node_is_called_at_what_it_announces_until_it_drains(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    async with running(registry, tmp_path, RpcConfig()) as node:
        peers = MessagePeers(Members(registry), RpcConfig(), MessageTimeouts())
        assert (await peers.service.inspect(Key("bob"))).messages == 0
        await node.drain(1.0)
        assert list(Members(registry).current.of_kind(NodeKind.MESSAGE)) == []
        with pytest.raises(UnavailableError):
            await peers.service.inspect(Key("bob"))
        await peers.stop()


async def test_a_comet_node_that_ended_before_this_node_began_cannot_save(tmp_path: Path) -> None:
    registry = ShakyRegistry()
    gone = await registry.register(NodeInfo(NodeKind.COMET, NodeName("gone"), "gone", {}))
    await gone.withdraw()
    async with calling(registry, tmp_path) as (node, peers):
        batch = await batch_of(node.store, BOB, "1", incarnation=gone.instance)
        with pytest.raises(NotOwnerError):
            await peers.service.save(batch)
        assert (await peers.service.inspect(batch.key)).messages == 0
        # Durable, for other message nodes.
        assert await node.store.is_fenced(gone.instance)


async def test_comet_nodes_that_are_registered_save(tmp_path: Path) -> None:
    registry = ShakyRegistry()
    earlier = await registry.register(NodeInfo(NodeKind.COMET, NodeName("one"), "one", {}))
    async with calling(registry, tmp_path) as (node, peers):
        later = await registry.register(NodeInfo(NodeKind.COMET, NodeName("two"), "two", {}))
        for entry in (earlier, later):
            batch = await batch_of(node.store, BOB, entry.instance, incarnation=entry.instance)
            assert (await peers.service.save(batch)).results[0].outcome is Outcome.SAVED


class LateRegistry(ShakyRegistry):
    """Tells of a change only to who asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[Callable[[Snapshot], None], Snapshot] = {}

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        is_first = True

        def hold(snapshot: Snapshot) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                on_change(snapshot)
            else:
                self._held[on_change] = snapshot

        return super().watch(hold)

    async def refresh(self) -> None:
        held, self._held = self._held, {}
        for on_change, snapshot in held.items():
            on_change(snapshot)


async def test_a_comet_node_that_this_node_has_not_heard_of_yet_saves(tmp_path: Path) -> None:
    registry = LateRegistry()
    async with running(registry, tmp_path, RpcConfig()) as node:
        peers = MessagePeers(Members(registry), RpcConfig(), MessageTimeouts())
        new = await registry.register(NodeInfo(NodeKind.COMET, NodeName("new"), "new", {}))
        reply = await peers.service.save(await batch_of(node.store, BOB, "1", incarnation=new.instance))
        assert reply.results[0].outcome is Outcome.SAVED
        await peers.stop()


async def test_nobody_is_refused_for_being_unknown_while_the_registry_is_away(tmp_path: Path) -> None:
    registry = ShakyRegistry()
    async with calling(registry, tmp_path) as (node, peers):
        registry.become(SessionState.SUSPENDED)
        reply = await peers.service.save(await batch_of(node.store, BOB, "1", incarnation="somebody"))
        assert reply.results[0].outcome is Outcome.SAVED


async def test_an_incarnation_that_nobody_can_have_is_bad_input(tmp_path: Path) -> None:
    async with calling(ShakyRegistry(), tmp_path) as (node, peers):
        with pytest.raises(RequestError):
            await peers.service.save(await batch_of(node.store, BOB, "1", incarnation="x" * 65))


async def test_a_second_node_with_an_embedded_store_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    async with running(registry, tmp_path / "one", RpcConfig()):
        stats = Stats()
        second = make_node(registry, tmp_path / "two", RpcConfig(), metrics=ClientMetrics(stats))
        with pytest.raises(ConfigError, match="allows one message node"):
            await second.start()
        await second.stop()
        calls = next(f for f in stats.snapshot() if f.name == "rpc_client_calls_total")
        assert calls.readings == {"message": 1}
        assert len(list(Members(registry).current.of_kind(NodeKind.MESSAGE))) == 1


async def test_node_takes_no_calls_and_says_why_until_a_server_of_its_store_has_answered_once(
    tmp_path: Path,
) -> None:
    server = RedisServer(tmp_path, "--requirepass", "right")
    server.start()
    url = server.url.replace("redis://", "redis://:{}@")
    settings = RedisSettings(servers=(url.format("wrong"),), retry_s=0.02)
    registry = MemoryRegistry()
    node = make_node(registry, tmp_path, RpcConfig(), build_redis_store(settings, limits_with(), Stats()))
    try:
        starting = asyncio.create_task(node.start())
        await eventually(lambda: "invalid username-password" in (node.fault() or ""))
        assert list(Members(registry).current.of_kind(NodeKind.MESSAGE)) == []
        with redis.Redis.from_url(url.format("right")) as client:
            client.config_set("requirepass", "wrong")
        await starting
        assert node.fault() is None
        assert len(list(Members(registry).current.of_kind(NodeKind.MESSAGE))) == 1
        server.kill()

        async def noted() -> bool:
            with pytest.raises((UnavailableError, InDoubtError)):
                await node.store.inspect(Key("bob"))
            return f"store {server.url}: away for " in node.notes()[0]

        await eventually_told(noted)
        # Others may be there, and this one comes back by itself.
        assert node.ready_fault() is None
        (told,) = (await node.status()).stores
        assert told.away is not None
        assert "wrong" not in str(told)
    finally:
        await node.stop()
        server.kill()


async def test_in_one_process_it_is_listed_without_an_address(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    async with running(registry, tmp_path):
        (info,) = Members(registry).current.of_kind(NodeKind.MESSAGE)
        assert (info.name, info.addresses) == ("message-1", {})
