"""comet/ownership/entry.py."""

from __future__ import annotations

from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from comet.config import CometConfig
from comet.ownership.entry import CometEntry

BOUND = {"ws": "0.0.0.0:6968", "tcp": "0.0.0.0:6969", "rpc": "10.0.0.1:6970"}
ANNOUNCED = {"ws": (":6968",), "tcp": (":6969",), "rpc": ("10.0.0.1:6970",)}


def node(name: str, instance: str) -> NodeInfo:
    return NodeInfo(NodeKind.COMET, NodeName(name), instance, ANNOUNCED)


async def test_entry_knows_its_own_and_its_predecessors_by_name_and_addresses() -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    left_behind = await registry.register(node("a", "before"))
    await registry.register(node("b", "other"))
    entry = CometEntry(
        CometConfig(name="a"), registry, members, instance="i", version="", started_at=0.0, is_in_cluster=True
    )
    try:
        entry.announce_at(BOUND)

        assert entry.predecessors == {left_behind.instance}
        assert entry.is_own(node("a", "now"))
        assert not entry.is_own(node("a", left_behind.instance))
        # It has this node's addresses by mistake, or this one has its.
        assert not entry.is_own(node("b", "renewed"))
    finally:
        members.close()
