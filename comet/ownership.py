"""Which keys this node owns, by the membership of the moment."""

from __future__ import annotations

from cluster.errors import NoNodeError
from cluster.membership import Members
from cluster.model import Key, NodeName


class Ownership:
    """Answers for one node of the ring."""

    def __init__(self, members: Members, name: NodeName) -> None:
        self._members = members
        self._name = name

    def owns(self, key: Key) -> bool:
        """Whether the ring gives this node the key."""
        ring = self._members.current.ring
        if ring.sole == self._name:
            return True
        try:
            return ring.owner(key) == self._name
        except NoNodeError:
            return False

    def owns_all(self, keys: list[Key]) -> bool:
        """Whether it owns every one; costs nothing while it is the only node."""
        if self._members.current.ring.sole == self._name:
            return True
        return all(self.owns(key) for key in keys)
