"""The life of a message node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.contracts.message_rpc import MessageTimeouts
from cluster.errors import ConfigError, UnavailableError
from cluster.members import Members
from cluster.model import Key, NodeKind
from cluster.peers import MessagePeers
from cluster.registry.memory import MemoryRegistry
from cluster.rpc.config import RpcConfig
from cluster.stats import Stats
from message.app import MessageNode
from message.nodeconfig import MessageConfig
from message.storage.embedded import EmbeddedStore


def make_node(registry: MemoryRegistry, data_dir: Path, rpc: RpcConfig | None) -> MessageNode:
    config = MessageConfig(data_dir=str(data_dir), rpc_bind="127.0.0.1:0")
    return MessageNode(
        config,
        store=EmbeddedStore(config, Stats()),
        instance=str(data_dir),
        version="test",
        registry=registry,
        members=Members(registry),
        stats=Stats(),
        rpc=rpc,
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


async def test_a_second_node_with_an_embedded_store_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    async with running(registry, tmp_path / "one", RpcConfig()):
        second = make_node(registry, tmp_path / "two", RpcConfig())
        with pytest.raises(ConfigError, match="allows one message node"):
            await second.start()
        await second.stop()
        assert len(list(Members(registry).current.of_kind(NodeKind.MESSAGE))) == 1


async def test_in_one_process_it_is_listed_without_an_address(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    async with running(registry, tmp_path):
        (info,) = Members(registry).current.of_kind(NodeKind.MESSAGE)
        assert (info.name, info.addresses) == ("message-1", {})
