"""message/alone.py: a node with an embedded store among the entries of others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

import message.alone
from cluster.errors import ConfigError
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registration
from cluster.registry.memory import MemoryRegistry
from cluster.rpc.config import RpcConfig
from message.alone import Solitude

OWN = {"rpc": ("127.0.0.1:9",)}


@pytest.fixture
async def dead_address() -> AsyncIterator[str]:
    """Where nobody answers, and nobody else will listen meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def register(registry: MemoryRegistry, address: str) -> Registration:
    info = NodeInfo(NodeKind.MESSAGE, NodeName("message-1"), "old", {"rpc": (address,)})
    return await registry.register(info)


async def test_an_entry_with_the_own_addresses_is_no_other_node() -> None:
    registry = MemoryRegistry()
    await register(registry, OWN["rpc"][0])
    alone = Solitude(Members(registry), OWN, RpcConfig())
    await alone.wait(1.0)
    await alone.check()


async def test_the_entry_of_a_dead_node_is_waited_for(dead_address: str) -> None:
    registry = MemoryRegistry()
    stale = await register(registry, dead_address)
    alone = Solitude(Members(registry), OWN, RpcConfig())
    waiting = asyncio.create_task(alone.wait(60.0))
    done, _ = await asyncio.wait((waiting,), timeout=3 * message.alone.LOOK_S)
    assert not done

    await stale.withdraw()

    async with asyncio.timeout(20):
        await waiting


async def test_who_is_registered_longer_than_a_dead_one_would_be_is_alive(
    dead_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message.alone, "EXTRA_S", 0.0)
    registry = MemoryRegistry()
    await register(registry, dead_address)
    alone = Solitude(Members(registry), OWN, RpcConfig())
    with pytest.raises(ConfigError, match="allows one message node"):
        await alone.wait(0.2)


async def test_who_comes_later_is_not_waited_for(dead_address: str) -> None:
    registry = MemoryRegistry()
    alone = Solitude(Members(registry), OWN, RpcConfig())
    await alone.wait(60.0)
    await register(registry, dead_address)
    with pytest.raises(ConfigError, match="allows one message node"):
        await alone.check()
