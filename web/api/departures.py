"""Remembers for a minute which nodes have gone, so that the listing shows what has just happened.

Each web node knows what it has seen itself; one that was started since shows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.members import Members
from cluster.membership import Membership
from cluster.model import NodeInfo

KEPT_S = 60.0
# Of a cluster that flaps the last ones are shown.
MAX_KEPT = 200


class Departure(msgspec.Struct, frozen=True):
    """A node that is not registered any more."""

    # As it was last seen.
    node: NodeInfo
    # In the clock of the departures.
    at: float

    @property
    def is_orderly(self) -> bool:
        """It had said that it would leave."""
        return self.node.is_draining


class Departures:
    """Follows the membership."""

    def __init__(self, members: Members, monotonic: Callable[[], float]) -> None:
        """Begin with who is there now; close() ends it."""
        self._monotonic = monotonic
        self._standing: dict[str, NodeInfo] = {}
        # By instance, in the order in which they went.
        self._gone: dict[str, Departure] = {}
        self._unwatch = members.watch(self._take)

    def close(self) -> None:
        """Follow no more."""
        self._unwatch()

    def recent(self) -> list[tuple[Departure, float]]:
        """Who went within the last minute, and how many seconds ago, the latest last."""
        now = self._monotonic()
        self._forget(now)
        return [(one, now - one.at) for one in self._gone.values()]

    def _take(self, membership: Membership) -> None:
        now = self._monotonic()
        self._forget(now)
        standing = {node.instance: node for node in membership.nodes}
        for instance, node in self._standing.items():
            if instance not in standing:
                self._gone[instance] = Departure(node, now)
        self._standing = standing
        # A node that had to register anew is another instance, but has not died.
        runs = {_run(node) for node in membership.nodes}
        for instance in [i for i, one in self._gone.items() if _run(one.node) in runs]:
            del self._gone[instance]

    def _forget(self, now: float) -> None:
        surplus = len(self._gone) - MAX_KEPT
        for place, (instance, departure) in enumerate(list(self._gone.items())):
            if place < surplus or now - departure.at > KEPT_S:
                del self._gone[instance]


def _run(node: NodeInfo) -> tuple[object, ...]:
    """What stays the same while a process lives."""
    return node.kind, node.name, node.started_at, tuple(sorted(node.addresses.items()))
