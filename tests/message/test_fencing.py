"""Comet nodes whose registration has ended are fenced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.errors import UnavailableError
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.base import SessionState
from cluster.registry.memory import MemoryRegistry
from message.fencing import Fencer
from tests.support.eventually import eventually
from tests.support.registry import ShakyRegistry


class Fences:
    """Takes fences, after some refusals, and knows them."""

    def __init__(self, refusals: int = 0, refusal: Exception | None = None) -> None:
        self.taken: list[str] = []
        self.refused = 0
        self._refusals = refusals
        self._refusal = refusal or UnavailableError("redis is away")

    async def fence(self, incarnation: str) -> None:
        if self._refusals:
            self._refusals -= 1
            self.refused += 1
            raise self._refusal
        self.taken.append(incarnation)

    async def is_fenced(self, incarnation: str) -> bool:
        return incarnation in self.taken


def node(kind: NodeKind, instance: str) -> NodeInfo:
    return NodeInfo(kind, NodeName(instance), instance, {})


@asynccontextmanager
async def following(registry: MemoryRegistry, fences: Fences) -> AsyncIterator[Fencer]:
    fencer = Fencer(registry, fences)
    fencer.start()
    try:
        yield fencer
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


@pytest.mark.parametrize("refusal", [UnavailableError("redis is away"), ZeroDivisionError("a bug")])
async def test_a_store_that_refuses_is_told_again(refusal: Exception) -> None:
    registry, fences = MemoryRegistry(), Fences(2, refusal)
    first = await registry.register(node(NodeKind.COMET, "first"))
    second = await registry.register(node(NodeKind.COMET, "second"))
    async with following(registry, fences):
        await first.withdraw()
        await second.withdraw()
        await eventually(lambda: len(fences.taken) == 2)
    assert sorted(fences.taken) == ["first", "second"]


async def test_who_asks_and_is_not_registered_any_more_is_fenced() -> None:
    registry, fences = MemoryRegistry(), Fences()
    await registry.register(node(NodeKind.COMET, "stays"))
    async with following(registry, fences) as fencer:
        # It ended before this node was there to see it.
        assert await fencer.is_fenced("gone")
        assert not await fencer.is_fenced("stays")
        assert await fencer.is_fenced("gone")
    assert fences.taken == ["gone"]


async def test_who_asks_is_not_told_before_the_store_knows() -> None:
    fences = Fences(refusals=1)
    async with following(MemoryRegistry(), fences) as fencer:
        with pytest.raises(UnavailableError):
            await fencer.is_fenced("gone")
        assert fences.taken == []
        assert await fencer.is_fenced("gone")
    assert fences.taken == ["gone"]


async def test_who_was_seen_to_end_is_not_told_otherwise_while_the_store_does_not_know() -> None:
    registry, fences = ShakyRegistry(1.0), Fences(refusals=2)
    entry = await registry.register(node(NodeKind.COMET, "gone"))
    ended = entry.instance
    async with following(registry, fences) as fencer:
        await entry.withdraw()
        await eventually(lambda: fences.refused == 1)
        registry.become(SessionState.SUSPENDED)
        with pytest.raises(UnavailableError):
            await fencer.is_fenced(ended)
        assert await fencer.is_fenced(ended)


@pytest.mark.parametrize("state", [SessionState.SUSPENDED, SessionState.LOST])
async def test_nobody_is_fenced_for_being_unknown_while_the_registry_is_away(state: SessionState) -> None:
    registry, fences = ShakyRegistry(1.0), Fences()
    registry.become(state)
    async with following(registry, fences) as fencer:
        assert not await fencer.is_fenced("somebody")
    assert fences.taken == []
