"""Who may have owned a key between two memberships that follow each other here.

Changes that come quickly one after another are seen as one. Of two nodes that
join at about the same time the later one never sees the membership between,
under which the earlier one owned keys that are its own now.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.errors import NoNodeError
from cluster.membership import Membership
from cluster.model import Key, NodeInfo, NodeName
from cluster.ring import Ring


class Interval:
    """One membership, and what was between it and the next. Immutable.

    What came and went between the two leaves no trace in either. A node must
    have been cut off from the registry for as long as another one lived, to
    miss that; what was stored meanwhile it finds with its next save.
    """

    def __init__(self, before: Membership, after: Membership) -> None:
        """Compare two memberships that were seen one after the other."""
        self._before = before
        earlier, later = before.serving_nodes, after.serving_nodes
        self._steady = {
            name for name, node in earlier.items() if name in later and _is_unchanged(node, later[name])
        }
        changed = (earlier.keys() | later.keys()) - self._steady
        # One instance has gone and another come, and the name may have been nobody's between.
        replaced = [n for n in earlier.keys() & later.keys() if earlier[n].instance != later[n].instance]
        # They differ by a single change: nothing was between.
        self.is_whole = len(changed) + len(replaced) < 2
        self._nodes: dict[NodeName, list[NodeInfo]] = {name: [node] for name, node in earlier.items()}
        if not self.is_whole:
            for name in later.keys() - self._steady:
                self._nodes.setdefault(name, []).append(later[name])
            self._ring = _common_ring(before, after)

    @property
    def nodes(self) -> Iterable[NodeInfo]:
        """All instances that owned keys, or may have."""
        return (node for nodes in self._nodes.values() for node in nodes)

    def owners(self, key: Key) -> list[NodeInfo]:
        """The instances that owned a key, or may have.

        Whichever of the changed nodes were there, the key went to the first that was, in the order of
        the ring of all of them; and not beyond the first that was always there.
        """
        if self.is_whole:
            try:
                return [self._before.owner(key)]
            except NoNodeError:
                return []
        found: list[NodeInfo] = []
        for name in self._ring.order(key):
            found += self._nodes[name]
            if name in self._steady:
                break
        return found


def _is_unchanged(node: NodeInfo, later: NodeInfo) -> bool:
    return node.instance == later.instance and node.weight == later.weight


def _common_ring(before: Membership, after: Membership) -> Ring:
    """The ring of all nodes of both, with the higher weight of each: it has the points of both."""
    weights = dict(before.ring.weights)
    for name, weight in after.ring.weights.items():
        weights[name] = max(weight, weights.get(name, 0))
    for ring in (after.ring, before.ring):
        if ring.weights == weights:
            return ring
    return Ring(weights)
