"""This node's own entry in the registry: announces it, marks it, takes it back, knows it among others."""

from __future__ import annotations

import asyncio
import contextlib

from cluster.addresses import advertised_address
from cluster.errors import EnckeError
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registration, Registry
from comet.config import CometConfig

# For what this node announces to come back from the registry.
NOTICE_S = 1.0


class CometEntry:
    """One process's registration under the name of its node."""

    def __init__(
        self,
        config: CometConfig,
        registry: Registry,
        members: Members,
        *,
        instance: str,
        version: str,
        started_at: float,
        is_in_cluster: bool,
    ) -> None:
        """Announce nothing yet.

        Args:
            instance: unique name of this run.
            started_at: unix seconds.
            is_in_cluster: others may fence this node.
        """
        self._config = config
        self._registry = registry
        self._members = members
        self._instance = instance
        self._version = version
        self._started_at = started_at
        self.is_in_cluster = is_in_cluster
        self._registration: Registration | None = None
        self._addresses: dict[str, tuple[str, ...]] = {}
        # Instances of this name that stood at these addresses before: left behind by another process.
        self.predecessors: frozenset[str] = frozenset()
        self._is_draining = False
        # Somebody changes the registration: a node that leaves must not be announced again behind its back.
        self._changing = asyncio.Lock()

    @property
    def is_registered(self) -> bool:
        """Between register() and withdraw()."""
        return self._registration is not None

    @property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        """What is announced, by purpose; empty before announce_at()."""
        return self._addresses

    def announce_at(self, bound: dict[str, str]) -> None:
        """Decide on the addresses to announce, from those that were bound, by purpose."""
        config = self._config
        advertised = {"ws": config.ws_advertise, "tcp": config.tcp_advertise, "rpc": config.rpc_advertise}
        self._addresses = {
            purpose: (advertised_address(advertised[purpose], address),) for purpose, address in bound.items()
        }
        nodes = self._members.current.of_kind(NodeKind.COMET)
        self.predecessors = frozenset(node.instance for node in nodes if self._is_here(node))

    def incarnation(self) -> str:
        """What the store's fence knows this node by; nobody fences a node of the same process."""
        if not self.is_in_cluster or self._registration is None:
            return ""
        return self._registration.instance

    def is_own(self, node: NodeInfo) -> bool:
        """Whether an entry is this process's, whichever registration it is of."""
        return self._is_here(node) and node.instance not in self.predecessors

    def _is_here(self, node: NodeInfo) -> bool:
        """Another node may be announced at these addresses by mistake."""
        return node.name == self._config.name and node.addresses == self._addresses

    async def register(self) -> None:
        """Announce the node, and see it announced.

        Raises:
            EnckeError: the registry did not take it.
        """
        self._registration = await self._registry.register(self._info())
        await self._see()

    async def renew(self) -> None:
        """Be another incarnation, unless the node is leaving.

        Raises:
            EnckeError: the registry did not take it.
        """
        async with self._changing:
            if self._registration is None or self._is_draining:
                return
            await self._registration.withdraw()
            self._registration = await self._registry.register(self._info())

    async def leave_ring(self) -> None:
        """Mark the entry, and see it marked: from then on pushes are answered NotOwner."""
        self._is_draining = True
        async with self._changing:
            if self._registration is None:
                return
            await self._registration.update(self._info())
        await self._see()

    async def withdraw(self) -> None:
        """Take the entry back; may be called again."""
        self._is_draining = True
        async with self._changing:
            registration, self._registration = self._registration, None
            if registration is not None:
                await registration.withdraw()

    async def _see(self) -> None:
        """Wait a little until what was announced has come back in the own membership."""
        with contextlib.suppress(EnckeError, TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                await self._members.refresh()

    def _info(self) -> NodeInfo:
        return NodeInfo(
            kind=NodeKind.COMET,
            name=NodeName(self._config.name),
            instance=self._instance,
            addresses=self._addresses,
            weight=self._config.weight,
            is_draining=self._is_draining,
            version=self._version,
            started_at=self._started_at,
        )
