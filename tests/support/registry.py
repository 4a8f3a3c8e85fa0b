"""A registry in memory whose session a test ends, suspends and brings back."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.errors import UnavailableError
from cluster.model import NodeInfo
from cluster.registry.base import SessionState
from cluster.registry.memory import MemoryRegistration, MemoryRegistry


class ShakyRegistry(MemoryRegistry):
    """Knows the instances that this process registered; each registration is another incarnation."""

    def __init__(self, session_timeout_s: float = 0.3) -> None:
        super().__init__()
        self._timeout_s = session_timeout_s
        self._state = SessionState.CONNECTED
        self._session_watchers: list[Callable[[SessionState], None]] = []
        self._registered = 0

    @property
    def session(self) -> SessionState:
        return self._state

    @property
    def session_timeout_s(self) -> float:
        return self._timeout_s

    async def register(self, info: NodeInfo) -> MemoryRegistration:
        self._registered += 1
        return await super().register(
            msgspec.structs.replace(info, instance=f"{info.instance}-{self._registered}")
        )

    def watch_session(self, on_state: Callable[[SessionState], None]) -> Callable[[], None]:
        self._session_watchers.append(on_state)
        return lambda: self._session_watchers.remove(on_state)

    async def refresh(self) -> None:
        if self._state is not SessionState.CONNECTED:
            raise UnavailableError("the registry is away")

    def become(self, state: SessionState) -> None:
        """Tell everybody of a state."""
        self._state = state
        for on_state in list(self._session_watchers):
            on_state(state)
