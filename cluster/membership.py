"""From a registry snapshot to owners of keys. A snapshot's conclusions are replaced whole, never edited."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.errors import NoNodeError
from cluster.model import Epoch, Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registry, Snapshot
from cluster.ring import Ring


class Membership:
    """What follows from one snapshot. Immutable."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.epoch: Epoch = snapshot.epoch
        self.nodes = snapshot.nodes
        # Name → the instance that serves: the first registered that is not draining.
        self._serving: dict[NodeName, NodeInfo] = {}
        for node in snapshot.nodes:
            if node.kind is NodeKind.COMET and not node.is_draining:
                self._serving.setdefault(node.name, node)
        self.ring = Ring({name: node.weight for name, node in self._serving.items()})

    def owner(self, key: Key) -> NodeInfo:
        """The comet instance that serves a key.

        Raises:
            NoNodeError: no comet node is registered.
        """
        return self._serving[self.ring.owner(key)]

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

    def serving(self, name: NodeName) -> NodeInfo | None:
        """The comet instance that serves under a name, None when none does."""
        return self._serving.get(name)

    def is_serving(self, node: NodeInfo) -> bool:
        """Whether this instance is in the ring (not a standby, not draining)."""
        return self._serving.get(node.name) is node

    def of_kind(self, kind: NodeKind) -> Iterable[NodeInfo]:
        """All registered instances of a kind, in order of registration."""
        return (node for node in self.nodes if node.kind is kind)


class Members:
    """The membership of this moment, kept up to date from a registry."""

    def __init__(self, registry: Registry) -> None:
        # Called with the new membership after each change, in order of subscription.
        self.on_change: list[Callable[[Membership], None]] = []
        self._current = Membership(Snapshot(epoch=(0, 0), nodes=()))
        self._unwatch = registry.watch(self._take)

    @property
    def current(self) -> Membership:
        """Read it once per decision: the next read may give another one."""
        return self._current

    def close(self) -> None:
        """Stop following the registry."""
        self._unwatch()

    def _take(self, snapshot: Snapshot) -> None:
        self._current = Membership(snapshot)
        for call in self.on_change:
            call(self._current)
