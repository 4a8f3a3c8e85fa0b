"""From a registry snapshot to owners of keys. A snapshot's conclusions are replaced whole, never edited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.errors import NoNodeError
from cluster.model import Epoch, Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Snapshot
from cluster.ring import Ring


class Membership:
    """What follows from one snapshot. Immutable."""

    def __init__(self, snapshot: Snapshot, ring: Ring | None = None) -> None:
        """Draw the conclusions.

        Args:
            ring: one with the weights of weights_of(snapshot), if there is one already.
        """
        self.epoch: Epoch = snapshot.epoch
        self.nodes = snapshot.nodes
        # Name → the instance that serves.
        self._serving = _serving(snapshot)
        self.ring = Ring(weights_of(snapshot)) if ring is None else ring
        # The instance that serves all keys, when there is exactly one: every push asks.
        self._sole = None if self.ring.sole is None else self._serving.get(self.ring.sole)

    def owner(self, key: Key) -> NodeInfo:
        """The comet instance that serves a key.

        Raises:
            NoNodeError: no comet node is registered.
        """
        return self._sole or self._serving[self.ring.owner(key)]

    def group_by_owner(self, keys: list[Key]) -> list[tuple[NodeInfo, list[Key]]]:
        """Split keys by the instance that serves them, each group in the order of `keys`.

        Raises:
            NoNodeError: no comet node is registered.
        """
        sole = self.ring.sole
        if sole is not None:
            return [(self._serving[sole], keys)]
        groups: dict[NodeName, list[Key]] = {}
        for key in keys:
            groups.setdefault(self.ring.owner(key), []).append(key)
        if not groups:
            raise NoNodeError("no comet node is registered")
        return [(self._serving[name], group) for name, group in groups.items()]

    @property
    def serving_nodes(self) -> Mapping[NodeName, NodeInfo]:
        """The comet instances that serve, by name. Do not change it."""
        return self._serving

    def serving(self, name: NodeName) -> NodeInfo | None:
        """The comet instance that serves under a name; None when none does, or it has weight 0."""
        return self._serving.get(name)

    def is_serving(self, node: NodeInfo) -> bool:
        """Whether this instance is in the ring (not a standby, not draining, not of weight 0)."""
        return self._serving.get(node.name) is node

    def of_kind(self, kind: NodeKind) -> Iterable[NodeInfo]:
        """All registered instances of a kind, in order of registration."""
        return (node for node in self.nodes if node.kind is kind)


def weights_of(snapshot: Snapshot) -> dict[NodeName, int]:
    """Weights of the nodes that own something, by name."""
    return {name: node.weight for name, node in _serving(snapshot).items()}


def _serving(snapshot: Snapshot) -> dict[NodeName, NodeInfo]:
    """The instance that serves under each name: the first registered that is not draining.

    With weight 0 it serves nothing, and neither do those that stand by.
    """
    first: dict[NodeName, NodeInfo] = {}
    for node in snapshot.nodes:
        if node.kind is NodeKind.COMET and not node.is_draining:
            first.setdefault(node.name, node)
    return {name: node for name, node in first.items() if node.weight > 0}
