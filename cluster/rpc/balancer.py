"""Chooses one of several equal peers for a key, by weight.

A key always goes to the same peer while that peer is up, so what is asked for
one key stays in order. When it goes down only its keys move, each to the next
peer of its own order; they come back with it. Nodes that see the same list
choose alike (rendezvous hashing), so nobody has to be told.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

# Keys share orders of peers. Enough for shares within 2 % of the weights.
SLOTS = 2048

_HASH_RANGE = 2**64


class Peer(Protocol):
    """What can be chosen."""

    @property
    def is_up(self) -> bool:
        """Connected to a peer that takes calls."""
        ...

    @property
    def is_connecting(self) -> bool:
        """A call made now waits for the connection."""
        ...


P = TypeVar("P", bound=Peer)


class Balancer(Generic[P]):
    """Peers and their weights; replaced whole when the list changes."""

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}
        self._peers: dict[str, P] = {}
        # Slot → peers, first choice first. Made when a key of the slot comes by:
        # a change of the list costs nothing, a choice 0.4 us (bench/rpc.py).
        self._orders: dict[int, tuple[P, ...]] = {}
        # The order of every key, while there is at most one peer.
        self._sole: tuple[P, ...] | None = ()

    def replace(self, peers: Mapping[str, tuple[P, int]]) -> None:
        """Take a new list: name → (peer, weight). Weight 0 is never chosen.

        Choices for keys whose first peer is in both lists with the same weights stay.
        """
        usable = {name: entry for name, entry in peers.items() if entry[1] > 0}
        self._peers = {name: peer for name, (peer, _) in usable.items()}
        self._weights = {name: weight for name, (_, weight) in usable.items()}
        self._orders = {}
        self._sole = tuple(self._peers.values()) if len(self._peers) < 2 else None

    def order(self, key: str) -> tuple[P, ...]:
        """All peers in the order in which they are tried for this key; empty when there are none."""
        if self._sole is not None:
            return self._sole
        slot = zlib.crc32(key.encode()) % SLOTS
        order = self._orders.get(slot)
        if order is None:
            names = rank(slot, self._weights)
            order = self._orders[slot] = tuple(self._peers[name] for name in names)
        return order

    def choose(self, key: str) -> P | None:
        """The peer for this key: the first that is up, else the first that is being connected.

        When all are down, the first: its error tells why. None when there are no peers.
        """
        if self._sole:
            return self._sole[0]
        order = self.order(key)
        for peer in order:
            if peer.is_up:
                return peer
        return _hopeful(order) or (order[0] if order else None)

    def choose_other(self, key: str, *tried: P) -> P | None:
        """The peer for what some could not answer. None when no other is up or being connected."""
        order = tuple(peer for peer in self.order(key) if peer not in tried)
        return next((peer for peer in order if peer.is_up), None) or _hopeful(order)


def _hopeful(order: tuple[P, ...]) -> P | None:
    return next((peer for peer in order if peer.is_connecting), None)


def rank(slot: int, weights: Mapping[str, int]) -> list[str]:
    """Order names for a slot: a name comes first with a probability in proportion to its weight.

    Each name draws an exponentially distributed number from the hash of itself
    and the slot, at the rate of its weight; the lowest wins. A name that comes
    or goes changes nothing between the others.
    """
    return sorted(weights, key=lambda name: (_draw(slot, name) / weights[name], name))


def _draw(slot: int, name: str) -> float:
    digest = hashlib.blake2b(f"{slot}:{name}".encode(), digest_size=8).digest()
    # Never 0: the logarithm must exist.
    return -math.log((int.from_bytes(digest) + 1) / (_HASH_RANGE + 1))
