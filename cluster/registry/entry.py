"""A node's own entry in the registry, for nodes that nobody fences; others have comet/ownership/entry.py."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.model import NodeInfo
from cluster.registry.base import Registration, Registry


class NodeEntry:
    """One process's registration: announced, marked as draining, taken back."""

    def __init__(self, registry: Registry, describe: Callable[[], NodeInfo]) -> None:
        """Announce nothing yet.

        Args:
            describe: what to announce; asked at each step, when the addresses are bound.
        """
        self._registry = registry
        self._describe = describe
        self._registration: Registration | None = None

    @property
    def is_registered(self) -> bool:
        """Between register() and withdraw()."""
        return self._registration is not None

    def is_own(self, node: NodeInfo) -> bool:
        """Whether an entry is this process's."""
        return self._registration is not None and node.instance == self._registration.instance

    async def register(self) -> None:
        """Announce the node. Waits for a registry that is away; see Registry.register().

        Raises:
            EnckeError: the registry did not take it.
        """
        self._registration = await self._registry.register(self._describe())

    async def mark_draining(self) -> None:
        """Send the others elsewhere; does nothing when the node is not registered."""
        if self._registration is not None:
            await self._registration.update(msgspec.structs.replace(self._describe(), is_draining=True))

    async def withdraw(self) -> None:
        """Take the entry back; may be called again, and without register()."""
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.withdraw()
