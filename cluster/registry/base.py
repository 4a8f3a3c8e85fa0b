"""Registry interface: how instances announce themselves and learn of each other.

Decides nothing about ownership; cluster/membership.py draws the conclusions
from a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from cluster.model import Epoch, NodeInfo


class Snapshot(msgspec.Struct, frozen=True):
    """Everyone who was registered at one moment."""

    epoch: Epoch
    # In order of registration: of several instances under one name the first serves.
    nodes: tuple[NodeInfo, ...]


class Registration(Protocol):
    """One instance's entry. Its owner withdraws it as the last step of a drain."""

    async def update(self, info: NodeInfo) -> None:
        """Replace what is announced (weight, draining)."""
        ...

    async def withdraw(self) -> None:
        """Remove the entry. May be called more than once."""
        ...


class Registry(Protocol):
    """Who is alive."""

    async def register(self, info: NodeInfo) -> Registration:
        """Announce an instance."""
        ...

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call on_change with the present snapshot now and with each later one.

        Ordering: epochs never go back.

        Returns:
            A function that ends the watch.
        """
        ...
