"""What is asked under a newer membership waits for it; who owns keys then is in comet_suite/owning.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UnavailableError
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from comet.ownership.epochs import EpochGate
from tests.comet.nodes import running_core


async def test_those_who_wait_go_on_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    gate = EpochGate(members, 5.0)
    members.watch(gate.take)
    seen: list[tuple[int, bool]] = []
    gate.when((0, 0), 5.0, lambda is_reached: seen.append((0, is_reached)))
    for number in (1, 2, 3):
        gate.when((1, 1), 5.0, lambda is_reached, number=number: seen.append((number, is_reached)))  # type: ignore[misc]
    gate.when((2, 0), 5.0, lambda is_reached: seen.append((4, is_reached)))
    await registry.register(NodeInfo(NodeKind.COMET, NodeName("a"), "a", {}))
    assert seen == [(0, True), (1, True), (2, True), (3, True)]
    await gate.stop()
    assert seen[4:] == [(4, False)]


async def test_nobody_waits_any_longer_for_a_node_that_has_stopped(tmp_path: Path) -> None:
    async with running_core(tmp_path, membership_wait_s=60.0) as core:
        waiting = core.push("bob", 1, epoch=(9, 9), timeout_s=60.0)
    # What comes now does not wait either, and leaves nothing behind.
    for answer in (waiting, core.push("bob", 1, epoch=(9, 9), timeout_s=60.0)):
        with pytest.raises(UnavailableError):
            await answer
