"""A comet node: builds its parts, with keys.py, and runs its life. The only file that knows all its sides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from cluster.contracts.comet import CometStatus, ConnectionInfo, Push, PushReply
from cluster.contracts.comet_rpc import SERVICE, comet_routes, handover_routes
from cluster.contracts.handover import HandoverService
from cluster.contracts.message import MessageService
from cluster.members import Members
from cluster.model import Epoch, Key, NodeInfo
from cluster.registry.base import Registry
from cluster.rpc.config import RpcConfig
from cluster.rpc.server import RpcServer
from cluster.stats import Stats
from cluster.storeclocks import StoreClocks
from cluster.tokens import TokenVerifier
from comet.clockkeeper import ClockKeeper
from comet.codec.protocol import CloseReason
from comet.config import CometConfig
from comet.keys import Keys
from comet.metrics import CometMetrics
from comet.ownership.entry import CometEntry
from comet.reception import Reception
from comet.sockets.door import OpenSockets
from comet.sockets.listener import Listener, start_tcp, start_websocket
from comet.sockets.poller import Poller
from comet.sockets.timers import TimerWheel
from comet.subscribers.acknowledgements import Acknowledgements
from comet.subscribers.catchup import Resumer
from comet.subscribers.closing import close_paced
from comet.subscribers.hub import Hub


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
        rpc: RpcConfig | None = None,
        peers: Callable[[NodeInfo], HandoverService] | None = None,
    ) -> None:
        """Build a node that does not listen yet; needs a running loop.

        Args:
            capacity: connections that the process can hold; config.max_connections may lower it.
            instance: unique name of this run, for the registry.
            rpc: how nodes in other processes call it; None = they are all in this one.
            peers: the other comet nodes; None = there are none, keys stay here.
        """
        loop = asyncio.get_running_loop()
        metrics = CometMetrics(stats)
        self._metrics = metrics
        self._config = config
        self._capacity = min(capacity, config.max_connections or capacity)
        self._clocks = StoreClocks(time.monotonic_ns)
        self._hub = Hub(self._clocks, config.max_connections_per_key, loop.call_later)
        self._clock_keeper = ClockKeeper(messages, self._clocks, config.store_timeout_s)
        entry = CometEntry(
            config,
            registry,
            members,
            instance=instance,
            version=version,
            started_at=time.time(),
            is_in_cluster=rpc is not None,
        )
        self._resumer = Resumer(messages, self._clocks, config, metrics)
        self._acknowledgements = Acknowledgements(
            messages, config.acknowledge_interval_s, config.store_timeout_s, metrics
        )
        self._wheel = TimerWheel(loop)
        self._poller = Poller(loop, loop.time)
        self._sockets = OpenSockets(self._capacity)
        self._keys = Keys(
            config,
            registry,
            members,
            entry,
            messages,
            self._hub,
            self._clocks,
            self._acknowledgements,
            metrics,
            peers=peers,
        )
        # Plain, because every push asks.
        self._admission = self._keys.admission
        routes = [*comet_routes(self, push=self._admission.push), *handover_routes(self._keys.yielding)]
        self._rpc = None if rpc is None else RpcServer(SERVICE, routes, rpc, stats=stats)
        self._reception = Reception(
            config,
            self._capacity,
            self._hub,
            self._keys.ownership,
            verifier,
            self._resumer,
            self._acknowledgements,
            self._wheel,
            metrics,
            unix_time=time.time,
        )
        self._listeners: dict[str, Listener] = {}
        self._add_gauges(stats)

    @property
    def addresses(self) -> dict[str, str]:
        """Bound "host:port" by purpose ("ws", "tcp", in a cluster "rpc"), once started; of what is on."""
        bound = {purpose: listener.address for purpose, listener in self._listeners.items()}
        return bound if self._rpc is None else {**bound, "rpc": self._rpc.address}

    def ready_fault(self) -> str | None:
        """Why it cannot serve now: no registration, no keys, or no clock of the store. None = it can."""
        return self._keys.fault() if self._clocks.is_known else "starting"

    def notes(self) -> list[str]:
        """What /readyz tells besides: nothing."""
        return []

    async def start(self) -> None:
        """Listen, then register.

        Raises:
            OSError: an address cannot be bound.
            EnckeError: the store did not answer.
        """
        await self._clock_keeper.start()
        self._wheel.start()
        self._poller.start()
        way_in = (self._config, self._reception, self._wheel, self._sockets, self._poller)
        if self._config.ws_bind:
            self._listeners["ws"] = await start_websocket(*way_in)
        if self._config.tcp_bind:
            self._listeners["tcp"] = await start_tcp(*way_in)
        if self._rpc is not None:
            await self._rpc.start(self._config.rpc_bind)
        await self._keys.start(self.addresses)

    async def run(self) -> None:
        """End when the node cannot watch over its registration any more, and could lose its keys unawares.

        Raises:
            Exception: the bug that keeps it from that.
        """
        await self._keys.wait_failed()

    async def drain(self, timeout_s: float) -> None:
        """Leave the ring, finish pushes, close subscribers with 1001 spread over the time, unregister.

        Bounded by the timeout; what is not done by then is cut by stop().
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        self._reception.drain()
        await self._keys.leave()
        for listener in self._listeners.values():
            listener.stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end - timeout_s / 4):
                await self._keys.pusher.drain()
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
        # What is still in progress is answered by what is known of it, while its callers can hear it.
        await self._keys.pusher.stop()
        await self._keys.entry.withdraw()
        # Last: until the entry has gone somebody may still ask, and is told where the key is not.
        if self._rpc is not None:
            await self._rpc.stop(max(0.0, end - loop.time()))

    async def stop(self) -> None:
        """Cut what is left, write acknowledgements, end all tasks."""
        self._reception.drain()
        await self._keys.stop()
        await self._resumer.stop()
        for listener in self._listeners.values():
            listener.abort()
        self._wheel.abort()
        await self._keys.pusher.stop()
        self._poller.stop()
        await self._acknowledgements.stop()
        self._wheel.stop()
        await self._clock_keeper.stop()
        await self._keys.entry.withdraw()
        if self._rpc is not None:
            await self._rpc.stop(0.0)

    # -- CometService

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push()."""
        return self._admission.push(push)

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """See CometService.delete_key()."""
        return await self._keys.delete_key(key, epoch)

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        """See CometService.connections()."""
        channel = self._hub.channel(key)
        return [
            ConnectionInfo(c.wire.transport, c.device, c.since, c.peer, c.unread_bytes, c.sent_mid)
            for c in (channel.connections() if channel is not None else [])
        ]

    async def status(self) -> CometStatus:
        """See CometService.status()."""
        hub = self._hub
        pushes = self._metrics.pushes.value
        return CometStatus(
            hub.connection_count,
            hub.channel_count,
            self._capacity,
            pushes,
            name=self._config.name,
            fault=self.ready_fault(),
        )

    # -- own affairs

    def _add_gauges(self, stats: Stats) -> None:
        hub = self._hub
        stats.gauge("connections", "Live subscribers.", lambda: hub.connection_count)
        stats.gauge("channels", "Keys with a live subscriber.", lambda: hub.channel_count)
        stats.gauge("capacity", "Subscribers that this process can hold.", lambda: self._capacity)
        self._keys.add_gauges(stats)
        stats.gauge("resuming", "Connections that catch up.", lambda: self._resumer.active_count)
