"""Consistent-hash ring: which node name owns a key. Immutable once built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from uhashring import HashRing

from cluster.errors import NoNodeError
from cluster.model import Key, NodeName

# Points per unit of weight. The share of a node is within about a sixth of what its
# weight says (Ring.shares() of up to 50 equal nodes), and building stays linear in the nodes.
VNODES = 160

# uhashring places points with MD5: 128 bits.
HASH_SPACE = 2**128


def point_count(weights: Mapping[NodeName, int]) -> int:
    """How many points a ring of these nodes has; building costs 2 us for each. One node needs none."""
    return VNODES * sum(weights.values()) if len(weights) > 1 else 0


class Ring:
    """Owners of keys among weighted nodes."""

    def __init__(self, weights: Mapping[NodeName, int]) -> None:
        """Build the ring; nodes of weight 0 own nothing."""
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        # The only node, when there is exactly one: it owns every key without hashing.
        # Plain, because every subscription and push asks.
        self.sole = next(iter(self._weights)) if len(self._weights) == 1 else None
        self._points = (
            HashRing(nodes={n: {"weight": w, "vnodes": VNODES} for n, w in self._weights.items()})
            if len(self._weights) > 1
            else None
        )

    @property
    def weights(self) -> Mapping[NodeName, int]:
        """The nodes that own something, by name."""
        return self._weights

    def owner(self, key: Key) -> NodeName:
        """The node that owns a key.

        Raises:
            NoNodeError: the ring is empty.
        """
        if self.sole is not None:
            return self.sole
        if self._points is None:
            raise NoNodeError("no comet node is registered")
        return NodeName(self._points.get_node(key))

    def order(self, key: Key) -> Iterator[NodeName]:
        """Each node once: after the owner of a key the one that would own it without that one, and so on."""
        if self._points is not None:
            yield from (NodeName(node["nodename"]) for node in self._points.range(key))
        elif self.sole is not None:
            yield self.sole

    def shares(self) -> dict[NodeName, float]:
        """Fraction of the hash space that each node owns; they sum to 1."""
        if self._points is None:
            return dict.fromkeys(self._weights, 1.0)
        arcs = dict.fromkeys(self._weights, 0)
        points = self._points.get_points()
        # The arc below the first point wraps around zero; a key belongs to the next point above it.
        below = points[-1][0] - HASH_SPACE
        for point, name in points:
            arcs[name] += point - below
            below = point
        return {name: arc / HASH_SPACE for name, arc in arcs.items()}
