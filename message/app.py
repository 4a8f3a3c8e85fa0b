"""A message node: a store, and in a cluster the way to it. The only file that knows all its parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from cluster.addresses import advertised_address
from cluster.contracts.message import MessageStatus
from cluster.contracts.message_rpc import SERVICE, message_node_routes, message_routes
from cluster.errors import EnckeError, StorageError
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registry
from cluster.registry.entry import NodeEntry
from cluster.rpc.config import RpcConfig
from cluster.rpc.methods import Route
from cluster.rpc.metrics import ClientMetrics
from cluster.rpc.server import RpcServer
from cluster.stats import Stats
from message.alone import Solitude
from message.config import MessageConfig
from message.fencing import Fencer
from message.storage.base import MessageStore
from message.storage.counters import StoreCounters
from message.storage.guarantees import one_line

log = logging.getLogger(__name__)

# Pause between attempts of a starting node to reach a server of its store.
STORE_RETRY_S = 0.2


class MessageNode:
    """Opens a store, serves it, tells the others."""

    def __init__(
        self,
        config: MessageConfig,
        *,
        store: MessageStore,
        instance: str,
        version: str,
        registry: Registry,
        members: Members,
        stats: Stats,
        rpc: RpcConfig | None = None,
        metrics: ClientMetrics | None = None,
    ) -> None:
        """Build a node that serves nothing yet.

        Args:
            store: not open yet; the node opens and closes it.
            instance: unique name of this run, for the registry.
            rpc: how other processes call it; None = who uses the store is in this one.
            metrics: of what this process calls.
        """
        self._config = config
        self.store = store
        self._instance = instance
        self._version = version
        self._registry = registry
        self._members = members
        self._started_at = time.time()
        self._saved = StoreCounters(stats).saved
        self._rpc_config = rpc
        self._metrics = metrics
        self._fencer = Fencer(registry, store)
        self._rpc = None if rpc is None else RpcServer(SERVICE, self._routes(), rpc, stats=stats)
        self._entry = NodeEntry(registry, self._info)
        self._is_open = asyncio.Event()

    @property
    def addresses(self) -> dict[str, str]:
        """Bound "host:port" by purpose (in a cluster "rpc"), once started."""
        return {} if self._rpc is None else {"rpc": self._rpc.address}

    def ready_fault(self) -> str | None:
        """Why it cannot serve now; None = the store is open, and others know of it."""
        return self.fault() or (None if self._entry.is_registered else "starting")

    def fault(self) -> str | None:
        """Why it can serve no key since it was started; None when it can, or could once."""
        reason = self.store.start_fault() if self._is_open.is_set() else None
        return None if reason is None else f"no server of the store has answered yet: {reason}"

    async def status(self) -> MessageStatus:
        """See MessageNodeService.status()."""
        connections = 0 if self._rpc is None else self._rpc.connections
        return MessageStatus(self.store.describe(), connections, self._saved.value)

    def notes(self) -> list[str]:
        """What each server of the store promises, a line each, for /readyz."""
        return [one_line(guarantee) for guarantee in self.store.describe()]

    async def start(self) -> None:
        """Open the store, listen, register. When it raises, stop() releases what had been opened.

        In a cluster it waits, for as long as it takes, until a server of the store has answered:
        registered before, it would be given keys that other nodes can serve.

        Raises:
            ConfigError: the store cannot be opened, or another node's store would have half of the messages.
            OSError: the address cannot be bound.
        """
        await self.store.start()
        self._is_open.set()
        if self._rpc is not None:
            await self._rpc.start(self._config.rpc_bind)
            self._fencer.start()
            await self._wait_answered()
        alone = self._solitude()
        # Before, so that nobody saves here meanwhile; and after, for two that start at once.
        if alone is not None:
            await alone.wait(self._registry.session_timeout_s)
        await self._entry.register()
        if alone is not None:
            await alone.check()

    async def run(self) -> None:
        """End when the store cannot go on: what it says it stored might not be there.

        Raises:
            StorageError: it cannot.
        """
        await self._is_open.wait()
        reason = await self.store.failed
        raise StorageError(f"the store has failed: {reason}")

    async def drain(self, timeout_s: float) -> None:
        """Send the callers to other nodes, finish what was asked for within the time, unregister."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        await self._entry.mark_draining()
        if self._rpc is not None:
            await self._rpc.stop(max(0.0, end - loop.time()))
        await self._entry.withdraw()

    async def stop(self) -> None:
        """Close everything, the store last. May be called without start() or drain()."""
        await self._fencer.stop()
        if self._rpc is not None:
            await self._rpc.stop(0.0)
        await self._entry.withdraw()
        await self.store.stop()

    async def _wait_answered(self) -> None:
        reason = self.fault()
        if reason is not None:
            log.warning("waiting: reason=%s", reason)
        while self.fault() is not None:
            await asyncio.sleep(STORE_RETRY_S)
            with contextlib.suppress(EnckeError):
                await self.store.clock()

    def _routes(self) -> list[Route]:
        return [
            *message_routes(self.store, save=self._fencer.save, is_fenced=self._fencer.is_fenced),
            *message_node_routes(self),
        ]

    def _info(self) -> NodeInfo:
        advertise = self._config.rpc_advertise
        return NodeInfo(
            kind=NodeKind.MESSAGE,
            name=NodeName(self._config.name),
            instance=self._instance,
            addresses={
                purpose: (advertised_address(advertise, bound),) for purpose, bound in self.addresses.items()
            },
            weight=self._config.weight,
            version=self._version,
            started_at=self._started_at,
        )

    def _solitude(self) -> Solitude | None:
        """Watches that no other message node is there, where none may be."""
        if self._rpc_config is None or self._config.store != "embedded":
            return None
        own = self._info().addresses
        return Solitude(self._members, own, self._rpc_config, self._metrics)
