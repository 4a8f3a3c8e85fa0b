"""Registry of one process."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from cluster.model import NodeInfo
from cluster.registry.base import SessionState, Snapshot
from cluster.registry.watchers import Watchers


class MemoryRegistry:
    """Knows the instances that this process registered itself."""

    def __init__(self) -> None:
        self._entries: dict[int, NodeInfo] = {}
        self._watchers: Watchers[Snapshot] = Watchers()
        self._next_id = 0
        # Number of changes so far; with the fixed first part it is the epoch.
        self._changes = 0

    @property
    def session(self) -> SessionState:
        """It is never away."""
        return SessionState.CONNECTED

    @property
    def session_timeout_s(self) -> float:
        """Entries end with the process, or when they are withdrawn."""
        return math.inf

    async def register(self, info: NodeInfo) -> MemoryRegistration:
        """Announce an instance; it stays until it is withdrawn."""
        self._next_id += 1
        entry_id = self._next_id
        self._set(entry_id, info)
        return MemoryRegistration(self, entry_id, info.instance)

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call on_change now and after each change, in the caller of the change."""
        unwatch = self._watchers.add(on_change)
        on_change(self._snapshot())
        return unwatch

    def watch_session(self, on_state: Callable[[SessionState], None]) -> Callable[[], None]:
        """The state never changes."""
        return lambda: None

    async def refresh(self) -> None:
        """Watchers have seen everything."""

    def _set(self, entry_id: int, info: NodeInfo | None) -> None:
        if info is None:
            self._entries.pop(entry_id, None)
        else:
            self._entries[entry_id] = info
        self._changes += 1
        self._watchers.tell(self._snapshot())

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            epoch=(1, self._changes),
            nodes=tuple(self._entries.values()),
            instances=frozenset(node.instance for node in self._entries.values()),
        )


class MemoryRegistration:
    """An entry of a MemoryRegistry."""

    def __init__(self, registry: MemoryRegistry, entry_id: int, instance: str) -> None:
        self.instance = instance
        self.is_standing = True
        self._registry = registry
        self._entry_id = entry_id

    async def update(self, info: NodeInfo) -> None:
        """Replace what is announced; does nothing after withdraw()."""
        if self.is_standing:
            self._registry._set(self._entry_id, msgspec.structs.replace(info, instance=self.instance))

    async def withdraw(self) -> None:
        """Remove the entry."""
        if self.is_standing:
            self.is_standing = False
            self._registry._set(self._entry_id, None)
