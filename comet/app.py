"""A comet node: builds all its parts and runs its life. The only file that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from cluster.contracts.comet import CometStatus, ConnectionInfo, Push, PushReply
from cluster.contracts.message import MessageService
from cluster.errors import EnckeError, NotOwnerError, UnavailableError
from cluster.membership import Members
from cluster.mids import StoreClock
from cluster.model import Epoch, Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registration, Registry
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from comet.acknowledgements import Acknowledgements
from comet.catchup import Resumer
from comet.closing import close_paced
from comet.config import CometConfig
from comet.hub import Hub
from comet.listener import Listener, start_tcp, start_websocket
from comet.metrics import CometMetrics
from comet.ownership import Ownership
from comet.protocol import CloseReason
from comet.push import Pusher
from comet.reception import Reception
from comet.timers import TimerWheel

log = logging.getLogger(__name__)

# The store's clock is asked for this often when no save brings it along.
CLOCK_REFRESH_S = 5.0


class CometNode:
    """Subscribers on one side, CometService on the other."""

    def __init__(
        self,
        config: CometConfig,
        *,
        capacity: int,
        instance: str,
        version: str,
        messages: MessageService,
        registry: Registry,
        members: Members,
        verifier: TokenVerifier,
        stats: Stats,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """Build a node that does not listen yet; needs a running loop.

        Args:
            capacity: connections that the process can hold; config.max_connections may lower it.
            instance: unique name of this run, for the registry.
        """
        loop = asyncio.get_running_loop()
        metrics = CometMetrics(stats)
        self._config = config
        self._instance = instance
        self._version = version
        self._messages = messages
        self._registry = registry
        self._registration: Registration | None = None
        self._started_at = unix_time()
        self._capacity = min(capacity, config.max_connections or capacity)
        self._clock = StoreClock(time.monotonic_ns)
        self._hub = Hub(self._clock, config.max_connections_per_key, loop.call_later)
        self._pusher = Pusher(messages, self._hub, self._clock, config, metrics)
        self._resumer = Resumer(messages, self._clock, config, metrics)
        self._acknowledgements = Acknowledgements(
            messages, config.acknowledge_interval_s, config.store_timeout_s
        )
        self._wheel = TimerWheel(loop)
        self._ownership = Ownership(members, NodeName(config.name))
        self._reception = Reception(
            config,
            self._capacity,
            self._hub,
            self._ownership,
            verifier,
            self._resumer,
            self._acknowledgements,
            self._wheel,
            metrics,
            unix_time,
        )
        self._listeners: dict[str, Listener] = {}
        self._clock_task: asyncio.Task[None] | None = None
        self._add_gauges(stats)

    @property
    def addresses(self) -> dict[str, str]:
        """Bound "host:port" by purpose ("ws", "tcp"), once started."""
        return {purpose: listener.address for purpose, listener in self._listeners.items()}

    @property
    def is_ready(self) -> bool:
        """Registered, and the store's clock is known."""
        return self._registration is not None and self._clock.is_known

    async def start(self) -> None:
        """Listen, then register.

        Raises:
            OSError: an address cannot be bound.
            EnckeError: the store did not answer.
        """
        await self._ask_clock()
        self._clock_task = asyncio.create_task(self._keep_clock())
        self._wheel.start()
        self._listeners["ws"] = await start_websocket(self._config, self._reception, self._wheel)
        self._listeners["tcp"] = await start_tcp(self._config, self._reception, self._wheel)
        self._registration = await self._registry.register(self._info(is_draining=False))

    async def drain(self, timeout_s: float) -> None:
        """Leave the ring, finish pushes, close subscribers with 1001 spread over the time, unregister.

        Bounded by the timeout; what is not done by then is cut by stop().
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        if self._registration is not None:
            await self._registration.update(self._info(is_draining=True))
        self._reception.drain()
        for listener in self._listeners.values():
            listener.stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end - timeout_s / 4):
                await self._pusher.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                time_left = max(0.0, end - loop.time() - self._config.linger_s)
                await close_paced(
                    list(self._hub.connections()),
                    CloseReason.DRAINING,
                    self._config.close_pace_per_s,
                    time_left,
                )
                await asyncio.gather(*(listener.wait_closed() for listener in self._listeners.values()))
        if self._registration is not None:
            await self._registration.withdraw()
            self._registration = None

    async def stop(self) -> None:
        """Cut what is left, write acknowledgements, end all tasks."""
        self._reception.drain()
        await self._resumer.stop()
        for listener in self._listeners.values():
            listener.abort()
        await self._pusher.stop()
        await self._acknowledgements.stop()
        self._wheel.stop()
        if self._clock_task is not None:
            self._clock_task.cancel()
            await asyncio.gather(self._clock_task, return_exceptions=True)
        if self._registration is not None:
            await self._registration.withdraw()
            self._registration = None

    # -- CometService

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push()."""
        if not self._ownership.owns_all(push.keys):
            refused: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
            refused.set_exception(NotOwnerError("another node owns a key of this push"))
            return refused
        return self._pusher.push(push)

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """See CometService.delete_key()."""
        if not self._ownership.owns(key):
            raise NotOwnerError("another node owns this key")
        deleted = 0

        async def turn() -> None:
            nonlocal deleted
            self._acknowledgements.forget(key)
            async with asyncio.timeout(self._config.store_timeout_s):
                deleted = await self._messages.delete_key(key)
            self._hub.close_key(key, CloseReason.DELETED)
            # A last acknowledgement may have come while the store was deleting.
            self._acknowledgements.forget(key)

        try:
            await self._pusher.run_exclusive(key, turn)
        except TimeoutError as error:
            raise UnavailableError("the store did not answer in time") from error
        return deleted

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        """See CometService.connections()."""
        channel = self._hub.channel(key)
        return [
            ConnectionInfo(c.wire.transport, c.device, c.since, c.peer, c.unread_bytes, c.sent_mid)
            for c in (channel.connections() if channel is not None else [])
        ]

    async def status(self) -> CometStatus:
        """See CometService.status()."""
        return CometStatus(self._hub.connection_count, self._hub.channel_count, self._capacity)

    # -- own affairs

    def _info(self, is_draining: bool) -> NodeInfo:
        return NodeInfo(
            kind=NodeKind.COMET,
            name=NodeName(self._config.name),
            instance=self._instance,
            addresses={
                "ws": (_advertised(self._config.ws_advertise, self._listeners["ws"].address),),
                "tcp": (_advertised(self._config.tcp_advertise, self._listeners["tcp"].address),),
            },
            weight=self._config.weight,
            is_draining=is_draining,
            version=self._version,
            started_at=self._started_at,
        )

    async def _ask_clock(self) -> None:
        asked_at_ns = time.monotonic_ns()
        self._clock.hear(await self._messages.clock(), asked_at_ns)

    async def _keep_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_REFRESH_S)
            try:
                async with asyncio.timeout(self._config.store_timeout_s):
                    await self._ask_clock()
            except (EnckeError, TimeoutError) as error:
                log.debug("store's clock not refreshed: reason=%r", error)

    def _add_gauges(self, stats: Stats) -> None:
        hub, pusher = self._hub, self._pusher
        stats.gauge("connections", "Live subscribers.", lambda: hub.connection_count)
        stats.gauge("channels", "Keys with a live subscriber.", lambda: hub.channel_count)
        stats.gauge("capacity", "Subscribers that this process can hold.", lambda: self._capacity)
        stats.gauge("busy_keys", "Keys with a push in progress.", lambda: pusher.busy_key_count)
        stats.gauge("pending_keys", "Results that pushes wait for.", lambda: pusher.pending_key_count)
        stats.gauge("resuming", "Connections that catch up.", lambda: self._resumer.active_count)


def _advertised(advertise: str, bound: str) -> str:
    """The address to tell: as configured (port 0: the bound port), else the bound one.

    One that is bound to all interfaces is told without its host: "the host you asked".
    """
    host, _, port = bound.rpartition(":")
    if advertise:
        told_host, _, told_port = advertise.rpartition(":")
        return f"{told_host}:{port}" if told_port == "0" else advertise
    return f":{port}" if host in ("0.0.0.0", "[::]", "::") else bound
