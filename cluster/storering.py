"""Which store server holds a key: for message nodes whom to ask, for comet nodes whose clock counts."""

from __future__ import annotations

from collections.abc import Mapping

from uhashring import HashRing

from cluster.model import Key

# Points per unit of weight. Never to be changed, nor the ring's other properties: stored
# messages are found where these say. Therefore it is not the ring of the comet nodes, which
# may be built otherwise some day.
VNODES = 160


class StoreRing:
    """Servers by name. Immutable."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        """Take the servers, each with its weight."""
        self._ring = HashRing(
            nodes={name: {"weight": weight, "vnodes": VNODES} for name, weight in weights.items()}
        )

    def server_of(self, key: Key) -> str:
        """Name of the server that holds a key.

        Raises:
            UnicodeEncodeError: it is no key at all.
        """
        return str(self._ring.get_node(key))
