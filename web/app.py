"""A web node: builds all its parts and runs its life. The only file that knows them all."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cluster.addresses import advertised_address
from cluster.contracts.message import MessageService
from cluster.contracts.web import WebStatus
from cluster.errors import ConfigError
from cluster.failurelimiter import FailureLimiter
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.peers import NodeServices
from cluster.registry.base import Registry
from cluster.registry.entry import NodeEntry
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from web.api.asking import StoreQuestions
from web.api.departures import Departures
from web.api.inspect import Inspector
from web.api.locate import Locator
from web.api.nodes import NodeListing
from web.api.offline import Offline
from web.api.openapi import with_document
from web.api.pushapi import PushApi
from web.api.routes import Router, admin_routes, public_routes
from web.api.storetime import StoreTime
from web.api.stream import PushStreams
from web.codec.params import BodyParser
from web.config import WebConfig
from web.metrics import WebMetrics
from web.pushing.owners import Owners
from web.pushing.push import Pusher
from web.quick.quick import QuickPushes
from web.quick.quickconnection import QuickConnection
from web.serving.access import Access
from web.serving.limits import ByteBudget
from web.serving.listener import Listener

log = logging.getLogger(__name__)

# Pushes that take long have one of so many parts of web.max_requests; the others are for those
# that do not take long yet, and for all else.
HELD_SHARE = 4


class WebNode:
    """The public and the admin HTTP API."""

    def __init__(
        self,
        config: WebConfig,
        *,
        capacity: int,
        instance: str,
        version: str,
        messages: MessageService,
        registry: Registry,
        members: Members,
        services: NodeServices,
        verifier: TokenVerifier,
        stats: Stats,
        status_address: str = "",
        may_lose_answers: bool = True,
    ) -> None:
        """Build a node that does not listen yet.

        Args:
            capacity: connections that each listener can have; config.max_connections may lower it.
            instance: unique name of this run, for the registry.
            services: of the other nodes; a comet instance's stays the same while it is registered.
            status_address: where its status port is bound; empty = it has none of its own.
            may_lose_answers: of a push, on the way from its comet node and from the store; False where all
                are in this process. Pushes have ids of ours then, so that they can be repeated in doubt, and
                a try has only a part of their time.

        Raises:
            ConfigError: others could reach the admin API without a token.
        """
        faults = [f"web.{place}: {text}" for place, text in config.faults()]
        if faults:
            raise ConfigError(faults)
        if capacity < config.max_connections:
            log.info(
                "room for %d connections to each of the HTTP ports, not for web.max_connections=%d:"
                " the limit of open files (ulimit -n) is too low",
                capacity,
                config.max_connections,
            )
            config = replace(config, max_connections=capacity)
        self._config = config
        self._instance = instance
        self._version = version
        self._entry = NodeEntry(registry, self._info)
        self._started_at = time.time()
        self._metrics = WebMetrics(stats)
        self._status_address = status_address
        self._departures = Departures(members, time.monotonic)
        self._owners = Owners(
            members,
            services.comets,
            timeout_s=config.request_timeout_s,
            attempt_s=config.comet_timeout_s if may_lose_answers else config.request_timeout_s,
        )
        # Random: no other run of any web node may ever make the same push ids.
        prefix = f"{secrets.token_hex(8)}-" if may_lose_answers else ""
        # In one process with the embedded store nothing fails alone: there is nobody to keep room for.
        max_held = max(1, config.max_requests // HELD_SHARE) if may_lose_answers else None
        self._pusher = Pusher(self._owners, self._metrics, prefix, config.idempotency_ttl_s, max_held)
        questions = StoreQuestions(config.request_timeout_s)
        self._store_time = StoreTime(messages, questions, time.monotonic)
        parser = BodyParser(config.max_keys_per_push)
        self._pushes = PushApi(self._pusher, parser, config.max_payload_bytes, config.max_many_body_bytes)
        self._streams = PushStreams(self._pushes, parser, self._owners, config)
        self._budget = ByteBudget(config.max_buffered_bytes)
        # Of bad admin tokens. Subscribers behind the address of a backend have another: see Offline.
        self._guesses = FailureLimiter(config.token_failures_per_minute, time.monotonic)
        self._public = self._public_listener(messages, questions, verifier)
        inspector = Inspector(self._owners, messages, questions)
        listing = self._listing(registry, members, services)
        self._admin = self._admin_listener(inspector, listing)
        self._add_gauges(stats)

    @property
    def addresses(self) -> dict[str, str]:
        """Bound "host:port" by purpose ("public", "admin"), once started; of what is on."""
        bound = {"public": self._public.address, "admin": self._admin.address}
        return {purpose: address for purpose, address in bound.items() if address}

    def ready_fault(self) -> str | None:
        """Why it cannot serve now: not bound and registered. None = it can."""
        return None if self._entry.is_registered else "starting"

    def notes(self) -> list[str]:
        """What /readyz tells besides: nothing."""
        return []

    async def status(self) -> WebStatus:
        """See WebNodeService.status()."""
        return self.numbers()

    def numbers(self) -> WebStatus:
        """How busy it is now."""
        connections = self._public.connection_count + self._admin.connection_count
        pushes = self._metrics.pushes.value
        return WebStatus(self._config.name, self._started_at, connections, pushes)

    async def start(self) -> None:
        """Listen, then register. When it raises, stop() releases what had been bound.

        Raises:
            OSError: an address cannot be bound.
        """
        for listener, bind in (
            (self._public, self._config.public_bind),
            (self._admin, self._config.admin_bind),
        ):
            if bind:
                await listener.start(bind)
        if self._admin.address and self._config.admin_insecure and not self._config.admin_token:
            log.warning("the admin API at %s asks for no token", self._admin.address)
        await self._entry.register()

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting and answer what was accepted, within timeout_s; unregister."""
        await self._entry.mark_draining()
        self._streams.drain()
        await asyncio.gather(self._public.drain(timeout_s), self._admin.drain(timeout_s))
        await self._entry.withdraw()

    async def stop(self) -> None:
        """Close what is left. May be called without start() or drain()."""
        await asyncio.gather(self._public.stop(), self._admin.stop())
        await self._store_time.stop()
        await self._owners.stop()
        self._pusher.close()
        self._departures.close()
        await self._entry.withdraw()

    def _public_listener(
        self, messages: MessageService, questions: StoreQuestions, verifier: TokenVerifier
    ) -> Listener:
        config = self._config
        offline = Offline(
            messages,
            questions,
            self._store_time,
            verifier,
            FailureLimiter(config.token_failures_per_minute, time.monotonic),
            self._metrics,
            max_bytes=config.max_fetch_bytes,
            unix_time=time.time,
        )
        router = Router(
            with_document(public_routes(Locator(self._owners), offline)),
            Access(config.public_origins, "", refuses_foreign=False, methods="GET"),
            self._metrics,
            self._guesses,
        )
        return Listener(router.serve, config, self._budget, "public")

    def _listing(self, registry: Registry, members: Members, services: NodeServices) -> NodeListing:
        return NodeListing(
            members,
            replace(services, webs=lambda node: self if self._entry.is_own(node) else services.webs(node)),
            self._departures,
            lambda: registry.session,
            timeout_s=self._config.status_timeout_s,
            unix_time=time.time,
        )

    def _admin_listener(self, inspector: Inspector, listing: NodeListing) -> Listener:
        config = self._config
        access = Access(
            config.admin_origins,
            config.admin_token,
            refuses_foreign=True,
            methods="GET, POST, DELETE",
            refuses_names=not (config.admin_token or config.admin_insecure),
        )
        routes = with_document(admin_routes(self._pushes, self._streams, inspector, listing))
        router = Router(routes, access, self._metrics, self._guesses)
        quick = QuickPushes(self._pusher, access, self._metrics, config.max_payload_bytes, self._guesses)
        connection = partial(QuickConnection, pushes=quick)
        return Listener(router.serve, config, self._budget, "admin", connection)

    def _info(self) -> NodeInfo:
        told = {purpose: advertised_address("", bound) for purpose, bound in self.addresses.items()}
        if self._status_address:
            told["status"] = advertised_address(self._config.status_advertise, self._status_address)
        return NodeInfo(
            kind=NodeKind.WEB,
            name=NodeName(self._config.name),
            instance=self._instance,
            addresses={purpose: (address,) for purpose, address in told.items()},
            version=self._version,
            started_at=self._started_at,
        )

    def _add_gauges(self, stats: Stats) -> None:
        for name, listener in (("public", self._public), ("admin", self._admin)):
            stats.gauge(
                f"http_{name}_connections", f"Connections of the {name} API.", _connection_count(listener)
            )
        stats.gauge("http_buffered_bytes", "Bytes of request bodies held.", lambda: self._budget.held)
        stats.gauge("http_held_pushes", "Pushes that take long and go on.", lambda: self._pusher.held_count)


def _connection_count(listener: Listener) -> Callable[[], float]:
    return lambda: listener.connection_count
