"""Registry interface: how instances announce themselves and learn of each other.

Decides nothing about ownership; cluster/membership.py draws the conclusions
from a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import msgspec

from cluster.model import Epoch, NodeInfo


class SessionState(Enum):
    """How this process stands with the registry. An entry stands as long as its session."""

    # The registry answers; what was announced stands.
    CONNECTED = "connected"
    # It does not answer. What was announced may stand or not, nobody here can
    # know; the last snapshot goes on to be the best there is.
    SUSPENDED = "suspended"
    # The session has ended, for sure, and all its entries with it (or there was none
    # yet). A new session, and the entries anew, follow by themselves.
    LOST = "lost"


class Snapshot(msgspec.Struct, frozen=True):
    """Everyone who was registered at one moment."""

    epoch: Epoch
    # In order of registration: of several instances under one name the first serves.
    nodes: tuple[NodeInfo, ...]
    # Incarnations of all entries that stand, also of those whose text nobody
    # understands and that are therefore no nodes. An incarnation that is gone from
    # a later snapshot has ended for ever: it may be fenced.
    instances: frozenset[str] = frozenset()


class Registration(Protocol):
    """One instance's entry. Its owner withdraws it as the last step of a drain."""

    @property
    def instance(self) -> str:
        """Incarnation of the entry, as NodeInfo.instance in snapshots; what fences name.

        It is another one after the entry had to be made anew (SessionState.LOST, or
        somebody deleted it). Meanwhile it is still the old one.
        """
        ...

    @property
    def is_standing(self) -> bool:
        """Whether the entry is there, as far as this process can know."""
        ...

    async def update(self, info: NodeInfo) -> None:
        """Replace what is announced (weight, draining).

        A registry that is away is told when it is back; this waits for it only for
        a bounded time, so that a drain goes on.
        """
        ...

    async def withdraw(self) -> None:
        """Remove the entry. May be called more than once. Bounded in time, as update()."""
        ...


class Registry(Protocol):
    """Who is alive."""

    @property
    def session(self) -> SessionState:
        """How this process stands with the registry now."""
        ...

    @property
    def session_timeout_s(self) -> float:
        """How long an entry outlives its process."""
        ...

    async def register(self, info: NodeInfo) -> Registration:
        """Announce an instance, and keep it announced until it is withdrawn.

        Waits for a registry that is away, for as long as it takes.

        Args:
            info: its `instance` only tells two runs of one process apart; the
                incarnation that others see is given by the registry.

        Cancellation: nothing stays announced.

        Raises:
            ConfigError: others could not use what is announced.
        """
        ...

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call on_change with the present snapshot now, if one is known, and with each later one.

        Ordering: epochs never go back. Snapshots of one epoch have the same comet
        nodes; message and web nodes may come and go within one.

        Returns:
            A function that ends the watch.
        """
        ...

    def watch_session(self, on_state: Callable[[SessionState], None]) -> Callable[[], None]:
        """Call on_state with each later state.

        Ordering: LOST is told before anything is announced anew, so that a node can
        first stop doing what only the old incarnation was allowed to do.

        Returns:
            A function that ends the watch; may be called more than once.
        """
        ...

    async def refresh(self) -> None:
        """Return when the watchers have seen everything that stood in the registry at the call.

        For who was told of a newer epoch than his own. Bound it with a timeout.

        Raises:
            UnavailableError: the registry is away.
        """
        ...
