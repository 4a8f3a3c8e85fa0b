"""A registry in memory whose session a test ends, suspends and brings back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from cluster.errors import UnavailableError
from cluster.model import NodeInfo
from cluster.registry.base import SessionState, Snapshot
from cluster.registry.memory import MemoryRegistration, MemoryRegistry
from cluster.registry.watchers import Watchers


class ShakyRegistry(MemoryRegistry):
    """Knows the instances that this process registered; each registration is another incarnation."""

    def __init__(self, session_timeout_s: float = 0.3) -> None:
        super().__init__()
        self._timeout_s = session_timeout_s
        self._state = SessionState.CONNECTED
        self._session_watchers: Watchers[SessionState] = Watchers()
        self._registered = 0
        # Registrations are taken; while they are not, they wait.
        self.takes = asyncio.Event()
        self.takes.set()
        self.waiting = 0

    @property
    def session(self) -> SessionState:
        return self._state

    @property
    def session_timeout_s(self) -> float:
        return self._timeout_s

    async def register(self, info: NodeInfo) -> MemoryRegistration:
        self.waiting += 1
        await self.takes.wait()
        self.waiting -= 1
        self._registered += 1
        return await super().register(
            msgspec.structs.replace(info, instance=f"{info.instance}-{self._registered}")
        )

    def watch_session(self, on_state: Callable[[SessionState], None]) -> Callable[[], None]:
        return self._session_watchers.add(on_state)

    async def refresh(self) -> None:
        if self._state is not SessionState.CONNECTED:
            raise UnavailableError("the registry is away")

    def become(self, state: SessionState) -> None:
        """Tell everybody of a state."""
        self._state = state
        self._session_watchers.tell(state)


class LateView(ShakyRegistry):
    """The view of a registry that one process has: as it was, until it catches up, in one step."""

    def __init__(self, registry: ShakyRegistry) -> None:
        super().__init__(registry.session_timeout_s)
        self._registry = registry
        self._newest = self._shown = registry._snapshot()
        self._is_late = True
        self._followers: list[Callable[[Snapshot], None]] = []
        registry.watch(self._take)

    async def register(self, info: NodeInfo) -> MemoryRegistration:
        return await self._registry.register(info)

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        self._followers.append(on_change)
        on_change(self._shown)
        return lambda: self._followers.remove(on_change)

    def hold(self) -> None:
        """See no more changes."""
        self._is_late = True

    def catch_up(self) -> None:
        """See what there is now, and each change from now on."""
        self._is_late = False
        self._tell()

    def _take(self, snapshot: Snapshot) -> None:
        self._newest = snapshot
        if not self._is_late:
            self._tell()

    def _tell(self) -> None:
        self._shown = self._newest
        for follower in list(self._followers):
            follower(self._newest)
