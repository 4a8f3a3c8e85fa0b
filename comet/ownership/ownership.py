"""Which keys this node owns, by the membership of the moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cluster.errors import NoNodeError
from cluster.membership import Membership
from cluster.model import Epoch, Key, NodeName
from cluster.ring import Ring


class Holdings:
    """What this node owns under one membership. Immutable."""

    __slots__ = ("_name", "_ring", "epoch", "is_everything", "is_serving")

    def __init__(self, name: NodeName, ring: Ring | None, epoch: Epoch) -> None:
        """Say what a node owns; without a ring it owns nothing (it stands by, drains, is not registered)."""
        self._name = name
        self._ring = ring
        self.epoch = epoch
        self.is_serving = ring is not None
        # The only node: it owns every key without hashing.
        self.is_everything = ring is not None and ring.sole == name

    def owns(self, key: Key) -> bool:
        """Whether the ring gives this node the key."""
        if self.is_everything:
            return True
        if self._ring is None:
            return False
        try:
            return self._ring.owner(key) == self._name
        except NoNodeError:
            return False


class Ownership:
    """Answers for one instance of a node of the ring."""

    def __init__(self, name: NodeName, membership: Membership) -> None:
        """Begin with the present membership; owns nothing before serve_at()."""
        self._name = name
        self._membership = membership
        self._addresses: Mapping[str, tuple[str, ...]] | None = None
        self._predecessors: Collection[str] = ()
        # The incarnation that has ended: what still names it is old.
        self._ended: str | None = None
        self._is_halted = False
        self.holdings = Holdings(name, None, membership.epoch)

    @property
    def has_stopped(self) -> bool:
        """Between lose() or halt() and owning again: no membership to come makes this instance an owner."""
        return self._is_halted or (self._ended is not None and not self.holdings.is_serving)

    def take(self, membership: Membership) -> None:
        """The membership has changed."""
        self._membership = membership
        self._conclude()

    def serve_at(self, addresses: Mapping[str, tuple[str, ...]], predecessors: Collection[str] = ()) -> None:
        """Own what the ring gives the instance that announces these addresses.

        By its addresses a process knows its entry from that of a standby under
        the same name; its incarnation it may learn later than others see it.

        Args:
            predecessors: instances that announced the same before this process did. Their keys
                may go to others before it is registered, and until then nothing could fence it.
        """
        self._addresses = addresses
        self._predecessors = predecessors
        self._conclude()

    def lose(self, incarnation: str) -> None:
        """Own nothing until a membership names another incarnation of this instance: this one has ended."""
        self._ended = incarnation
        self._is_halted = False
        self._conclude()

    def halt(self) -> None:
        """Own nothing until go_on(): others may own the keys."""
        self._is_halted = True
        self._conclude()

    def go_on(self) -> None:
        """Own again what the membership gives."""
        self._is_halted = False
        self._conclude()

    def owns(self, key: Key) -> bool:
        """Whether the ring gives this node the key."""
        return self.holdings.owns(key)

    def owns_all(self, keys: list[Key]) -> bool:
        """Whether it owns every one; costs nothing while it is the only node."""
        holdings = self.holdings
        return holdings.is_everything or all(map(holdings.owns, keys))

    def _conclude(self) -> None:
        membership = self._membership
        serving = membership.serving(self._name)
        is_mine = (
            serving is not None
            and serving.addresses == self._addresses
            and serving.instance != self._ended
            and serving.instance not in self._predecessors
            and not self._is_halted
        )
        self.holdings = Holdings(self._name, membership.ring if is_mine else None, membership.epoch)
