"""Clients follow the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.contracts.message_rpc import CLOCK, SERVICE, MessageTimeouts
from cluster.errors import EnckeError, OverloadedError, UnavailableError
from cluster.members import Members
from cluster.model import Mid, NodeInfo, NodeKind, NodeName
from cluster.peers import CometPeers, MessagePeers
from cluster.registry.memory import MemoryRegistry
from cluster.rpc.methods import Route
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import QUICK


class Clock:
    """A message node that only tells the time, its own name, or refuses to."""

    def __init__(self, number: int, refusal: EnckeError | None = None) -> None:
        self._number = number
        self.refusal = refusal
        self.asked = 0

    async def clock(self) -> Mid:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return Mid(self._number)


@asynccontextmanager
async def message_node(node: Clock | int) -> AsyncIterator[str]:
    clock = Clock(node) if isinstance(node, int) else node
    server = RpcServer(SERVICE, [Route(CLOCK, clock.clock)], QUICK)
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop(0.0)


def info(kind: NodeKind, instance: str, address: str, *, is_draining: bool = False) -> NodeInfo:
    return NodeInfo(kind, NodeName("n"), instance, {"rpc": (address,)}, is_draining=is_draining)


async def test_calls_go_to_the_message_nodes_that_are_registered_and_not_draining() -> None:
    registry = MemoryRegistry()
    peers = MessagePeers(Members(registry), QUICK, MessageTimeouts())
    async with message_node(1) as first, message_node(2) as second:
        with pytest.raises(UnavailableError):
            await peers.service.clock()
        entry = await registry.register(info(NodeKind.MESSAGE, "a", first))
        assert await peers.service.clock() == 1
        await registry.register(info(NodeKind.MESSAGE, "b", second))
        await entry.update(info(NodeKind.MESSAGE, "a", first, is_draining=True))
        assert await peers.service.clock() == 2
        await peers.stop()


@asynccontextmanager
async def two_nodes(*clocks: Clock) -> AsyncIterator[MessagePeers]:
    registry = MemoryRegistry()
    peers = MessagePeers(Members(registry), QUICK, MessageTimeouts())
    async with message_node(clocks[0]) as first, message_node(clocks[1]) as second:
        for name, address in (("a", first), ("b", second)):
            await registry.register(info(NodeKind.MESSAGE, name, address))
        try:
            yield peers
        finally:
            await peers.stop()


async def test_what_one_node_cannot_tell_another_is_asked() -> None:
    clocks = [Clock(1), Clock(2)]
    async with two_nodes(*clocks) as peers:
        first = await peers.service.clock()
        clocks[first - 1].refusal = UnavailableError("it does not reach the store")
        assert await peers.service.clock() == 3 - first


async def test_a_node_that_has_too_much_to_do_does_not_send_the_question_to_another() -> None:
    clocks = [Clock(n, OverloadedError("too many reads")) for n in (1, 2)]
    async with two_nodes(*clocks) as peers:
        with pytest.raises(OverloadedError):
            await peers.service.clock()
        assert sum(clock.asked for clock in clocks) == 1


async def test_each_node_is_asked_once() -> None:
    clocks = [Clock(n, UnavailableError("it does not reach the store")) for n in (1, 2)]
    async with two_nodes(*clocks) as peers:
        with pytest.raises(UnavailableError):
            await peers.service.clock()
        assert [clock.asked for clock in clocks] == [1, 1]


async def test_an_instance_that_has_gone_is_answered_for_as_not_available() -> None:
    registry = MemoryRegistry()
    peers = CometPeers(Members(registry), QUICK)
    node = info(NodeKind.COMET, "a", "127.0.0.1:1")
    entry = await registry.register(node)
    assert peers.of(node) is peers.of(node)
    await entry.withdraw()
    with pytest.raises(UnavailableError):
        await peers.of(node).status()
    await peers.stop()
