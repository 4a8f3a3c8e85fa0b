"""All three node kinds in one process: the composition behind `encke serve`.

The nodes are built as they would be in a cluster. What differs is what they
are given: a registry in memory, the embedded store, and each other directly
where a cluster has clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.addresses import join_address, split_address
from cluster.limits import raise_descriptor_limit, shared_capacity
from cluster.members import Members
from cluster.peers import NodeServices
from cluster.process import add_process_gauges
from cluster.registry.memory import MemoryRegistry
from cluster.service import ServiceTasks
from cluster.stats import Stats
from cluster.status import StatusListener
from comet.config import CometConfig
from encke.announcing import READY, Room, identity, listening, storing
from encke.config import EnckeConfig, ServeConfig
from encke.invocation import Invocation
from encke.parts import Parts, build_store

if TYPE_CHECKING:
    from comet.app import CometNode
    from message.app import MessageNode
    from web.app import WebNode

log = logging.getLogger(__name__)

# The rest is for spreading the subscribers' reconnects.
WEB_SHARE_OF_DRAIN = 0.25


class Standalone:
    """The application of `encke serve`; implements cluster.service.Application."""

    def __init__(
        self,
        config: EnckeConfig,
        stats: Stats,
        say: Callable[[str], None],
        invocation: Invocation = Invocation(),  # noqa: B008 -- a value
    ) -> None:
        """Start nothing yet.

        Args:
            say: takes the lines for standard output.
            invocation: for the examples.

        Raises:
            ConfigError: the address of a store's server is wrong.
        """
        self._config = config
        self._stats = stats
        self._say = say
        self._invocation = invocation
        registry = MemoryRegistry()
        self._members = Members(registry)
        self._parts = Parts(config, stats, registry, self._members)
        self._store = build_store(config, stats)
        self._status = StatusListener(config.serve.status_bind, stats, self._ready_fault, self._notes)
        self._comet: CometNode | None = None
        self._web: WebNode | None = None
        self._message: MessageNode | None = None
        self._is_draining = False

    async def start(self, tasks: ServiceTasks) -> None:
        """Start the store, then comet, then web, so that nobody is asked before he can answer.

        Raises:
            ConfigError: the store cannot be opened.
            OSError: an address cannot be bound.
        """
        limit = raise_descriptor_limit()
        message = self._message = self._parts.message(self._store)
        await message.start()
        tasks.spawn("store", message.run())
        # After the store, whose files are open now.
        reserve = self._config.process.reserve_descriptors
        capacity, http_capacity = shared_capacity(limit, reserve, self._config.web.max_connections)
        advertising = advertised(self._config.comet, self._config.serve)
        comet = self._comet = self._parts.comet(advertising, self._store, capacity)
        await comet.start()
        web = self._web = self._parts.web(
            self._store,
            # It is the only one, and knows itself.
            NodeServices(lambda _: comet, lambda _: message, lambda _: web),
            http_capacity,
            # Calls are direct, and the embedded store always answers, unless all of us end.
            may_lose_answers=self._config.message.store != "embedded",
        )
        await web.start()
        add_process_gauges(self._stats)
        await self._status.start()
        capacity = (await comet.status()).capacity
        if capacity < 1:
            log.warning("no room for subscribers: the limit of open files is %d (ulimit -n)", limit)
        self._announce({**comet.addresses, **web.addresses, **self._status.addresses}, capacity)

    def announce_drain(self) -> None:
        """See Application.announce_drain()."""
        self._is_draining = True

    async def drain(self, timeout_s: float) -> None:
        """Finish the requests in progress, then let comet finish its pushes and close its subscribers.

        Web goes first: a push that it has accepted still finds the node that
        saves and delivers it.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        if self._web is not None:
            await self._web.drain(timeout_s * WEB_SHARE_OF_DRAIN)
        if self._comet is not None:
            await self._comet.drain(max(0.0, end - loop.time()))

    async def stop(self) -> None:
        """Release everything, the store last: the others still write to it."""
        await self._status.stop()
        if self._web is not None:
            await self._web.stop()
        if self._comet is not None:
            await self._comet.stop()
        if self._message is not None:
            await self._message.stop()
        self._members.close()

    def _ready_fault(self) -> str | None:
        if self._is_draining:
            return "draining"
        return "starting" if self._comet is None else self._comet.ready_fault()

    def _notes(self) -> list[str]:
        return [identity("serve"), *(() if self._message is None else self._message.notes())]

    def _announce(self, addresses: dict[str, str], capacity: int) -> None:
        for line in (*listening(addresses), *storing(self._store.describe()), Room(capacity)):
            self._say(str(line))
        for text in (*self._invocation.suggestion(self._config, addresses), READY):
            self._say(text)


def advertised(comet: CometConfig, serve: ServeConfig) -> CometConfig:
    """Advertise serve.advertise_host with the bound ports, where comet advertises nothing itself."""
    host = serve.advertise_host
    if not host:
        return comet

    def told(bind: str) -> str:
        # Port 0 is replaced by the one that is bound; what is switched off is not told at all.
        return join_address(host, split_address(bind)[1]) if bind else ""

    return replace(
        comet,
        ws_advertise=comet.ws_advertise or told(comet.ws_bind),
        tcp_advertise=comet.tcp_advertise or told(comet.tcp_bind),
    )
