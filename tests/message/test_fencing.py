"""Comet nodes whose registration has ended are fenced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster.errors import UnavailableError
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from message.fencing import Fencer
from tests.support.eventually import eventually


class Fences:
    """Takes fences, after some refusals."""

    def __init__(self, refusals: int = 0) -> None:
        self.taken: list[str] = []
        self._refusals = refusals

    async def fence(self, incarnation: str) -> None:
        if self._refusals:
            self._refusals -= 1
            raise UnavailableError("redis is away")
        self.taken.append(incarnation)


def node(kind: NodeKind, instance: str) -> NodeInfo:
    return NodeInfo(kind, NodeName(instance), instance, {})


@asynccontextmanager
async def following(registry: MemoryRegistry, fences: Fences) -> AsyncIterator[None]:
    fencer = Fencer(registry, fences.fence)
    fencer.start()
    try:
        yield
    finally:
        await fencer.stop()


async def test_only_a_comet_node_that_has_gone_is_fenced() -> None:
    registry, fences = MemoryRegistry(), Fences()
    entries = [await registry.register(node(kind, kind.value)) for kind in NodeKind]
    await registry.register(node(NodeKind.COMET, "stays"))
    async with following(registry, fences):
        for entry in entries:
            await entry.withdraw()
        await eventually(lambda: fences.taken)
    assert fences.taken == ["comet"]


async def test_a_store_that_refuses_is_told_again() -> None:
    registry, fences = MemoryRegistry(), Fences(refusals=2)
    first = await registry.register(node(NodeKind.COMET, "first"))
    second = await registry.register(node(NodeKind.COMET, "second"))
    async with following(registry, fences):
        await first.withdraw()
        await second.withdraw()
        await eventually(lambda: len(fences.taken) == 2)
    assert sorted(fences.taken) == ["first", "second"]
