"""Tells an operator of two nodes that announce one address: what is meant for one comes to the other."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import combinations

from cluster.addresses import is_loopback, split_address
from cluster.model import NodeInfo

log = logging.getLogger(__name__)

# Of names and addresses in a line: they come from strangers.
SHOWN_CHARS = 200

# More nodes than this at one address are not told of.
MAX_NODES = 8


class Sharing:
    """Remembers the pairs of nodes that were told of: once for as long as they share an address."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def tell(self, nodes: Iterable[NodeInfo]) -> None:
        """Log the pairs that are new among all the nodes that stand now."""
        shared = _shared(nodes)
        for one, other in sorted(shared.keys() - self._told):
            log.warning(
                "two nodes announce one address, which leads to one of them:"
                " node=%.*s other=%.*s addresses=%.*s",
                *(SHOWN_CHARS, one),
                *(SHOWN_CHARS, other),
                *(SHOWN_CHARS, ", ".join(shared[one, other])),
            )
        self._told = set(shared)


def _shared(nodes: Iterable[NodeInfo]) -> dict[tuple[str, str], list[str]]:
    """Pairs of nodes of different kinds or names, and the addresses that they have in common.

    Instances of one name may share them: a standby behind the same proxy, an entry left behind.
    """
    names: dict[tuple[str, str], set[str]] = {}
    for node in nodes:
        for purpose in ("rpc", "ws", "tcp"):
            for address in node.addresses.get(purpose, ()):
                names.setdefault((purpose, address), set()).add(f"{node.kind.value} {node.name}")
    shared: dict[tuple[str, str], list[str]] = {}
    for (purpose, address), there in names.items():
        if len(there) == 1 or not _is_one_place(purpose, address):
            continue
        for pair in combinations(sorted(there)[:MAX_NODES], 2):
            shared.setdefault(pair, []).append(f"{purpose} {address}")
    return shared


def _is_one_place(purpose: str, address: str) -> bool:
    """Whether it cannot be meant to be another place on each machine, as of a proxy for subscribers."""
    host, _ = split_address(address)
    return bool(host) and (purpose == "rpc" or not is_loopback(host))
