"""A comet node: builds all its parts and runs its life. The only file that knows them all."""

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
from cluster.model import Epoch, Key, NodeInfo, NodeName
from cluster.registry.base import Registry
from cluster.rpc.config import RpcConfig
from cluster.rpc.server import RpcServer
from cluster.stats import Stats
from cluster.storeclocks import StoreClocks
from cluster.tokens import TokenVerifier
from comet.acknowledgements import Acknowledgements
from comet.admission import Admission
from comet.catchup import Resumer
from comet.closing import close_paced
from comet.config import CometConfig
from comet.deleting import Deleter
from comet.door import OpenSockets
from comet.entry import Entry
from comet.epochs import EpochGate
from comet.filling import Filler
from comet.forwarding import Forwarder
from comet.hub import Hub
from comet.listener import Listener, start_tcp, start_websocket
from comet.metrics import CometMetrics
from comet.moving import Mover
from comet.ownership import Ownership
from comet.poller import Poller
from comet.protocol import CloseReason
from comet.push import Pusher
from comet.reception import Reception
from comet.standing import Standing
from comet.storetime import ClockKeeper
from comet.succession import Succession
from comet.timers import TimerWheel
from comet.yielding import Yielding


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
        unix_time: Callable[[], float] = time.time,
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
        self._messages = messages
        self._capacity = min(capacity, config.max_connections or capacity)
        self._clocks = StoreClocks(time.monotonic_ns)
        self._hub = Hub(self._clocks, config.max_connections_per_key, loop.call_later)
        self._clock_keeper = ClockKeeper(messages, self._clocks, config.store_timeout_s)
        self._ownership = Ownership(NodeName(config.name), members.current)
        self._entry = Entry(
            config,
            registry,
            members,
            instance=instance,
            version=version,
            started_at=unix_time(),
            is_in_cluster=rpc is not None,
        )
        # In one process nobody else can take keys away.
        self._standing = None if rpc is None else self._make_standing(registry, members)
        self._forwarder = None if peers is None else Forwarder(self._entry.is_own, metrics)
        self._pusher = Pusher(
            messages,
            self._hub,
            self._clocks,
            config,
            metrics,
            incarnation=self._entry.incarnation,
            owns=self._still_owns,
            on_fenced=self._take_refusal,
            forwarder=self._forwarder,
        )
        self._resumer = Resumer(messages, self._clocks, config, metrics)
        self._acknowledgements = Acknowledgements(
            messages, config.acknowledge_interval_s, config.store_timeout_s, metrics
        )
        self._wheel = TimerWheel(loop)
        self._poller = Poller(loop, loop.time)
        self._sockets = OpenSockets(self._capacity)
        filler = Filler(messages, self._hub, metrics, config.store_timeout_s)
        self._mover = Mover(self._hub, self._pusher, config.close_pace_per_s)
        self._succession = None
        if peers is not None and self._forwarder is not None:
            self._succession = Succession(
                members,
                self._forwarder,
                peers,
                messages.is_fenced,
                self._entry.is_own,
                self._hub,
                self._pusher,
                filler,
                metrics,
            )
        self._epochs = EpochGate(members, config.membership_wait_s)
        self._admission = Admission(self._ownership, self._standing, self._epochs, self._pusher)
        self._deleter = Deleter(
            messages,
            self._hub,
            self._pusher,
            self._acknowledgements,
            self._forwarder,
            config.store_timeout_s,
        )
        self._yielding = Yielding(
            members,
            self._epochs,
            self._ownership,
            self._hub,
            self._pusher,
            self._mover,
            filler,
            self._deleter,
            metrics,
        )
        routes = [*comet_routes(self, push=self._admission.push), *handover_routes(self._yielding)]
        self._rpc = None if rpc is None else RpcServer(SERVICE, routes, rpc, stats=stats)
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
        self._add_gauges(stats)
        self._follow(members)

    @property
    def addresses(self) -> dict[str, str]:
        """Bound "host:port" by purpose ("ws", "tcp", in a cluster "rpc"), once started."""
        bound = {purpose: listener.address for purpose, listener in self._listeners.items()}
        return bound if self._rpc is None else {**bound, "rpc": self._rpc.address}

    def ready_fault(self) -> str | None:
        """Why it cannot serve now: not registered, or the store's clock is not known. None = it can."""
        return None if self._entry.is_registered and self._clocks.is_known else "starting"

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
        self._listeners["ws"] = await start_websocket(*way_in)
        self._listeners["tcp"] = await start_tcp(*way_in)
        if self._rpc is not None:
            await self._rpc.start(self._config.rpc_bind)
        self._entry.announce_at(self.addresses)
        if self._succession is not None:
            self._succession.start()
        self._ownership.serve_at(self._entry.addresses, self._entry.predecessors)
        await self._entry.register()
        if self._standing is not None:
            self._standing.start()

    async def run(self) -> None:
        """End when the node cannot watch over its registration any more, and could lose its keys unawares.

        Raises:
            Exception: the bug that keeps it from that.
        """
        if self._standing is not None:
            await self._standing.wait_failed()

    async def drain(self, timeout_s: float) -> None:
        """Leave the ring, finish pushes, close subscribers with 1001 spread over the time, unregister.

        Bounded by the timeout; what is not done by then is cut by stop().
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        await self._mover.stop()
        if self._succession is not None:
            await self._succession.stop()
        self._reception.drain()
        await self._entry.leave_ring()
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
        # What is still in progress is answered by what is known of it, while its callers can hear it.
        await self._pusher.stop()
        await self._entry.withdraw()
        # Last: until the entry has gone somebody may still ask, and is told where the key is not.
        if self._rpc is not None:
            await self._rpc.stop(max(0.0, end - loop.time()))

    async def stop(self) -> None:
        """Cut what is left, write acknowledgements, end all tasks."""
        self._reception.drain()
        if self._standing is not None:
            await self._standing.stop()
        if self._succession is not None:
            await self._succession.stop()
        await self._mover.stop()
        await self._epochs.stop()
        await self._resumer.stop()
        for listener in self._listeners.values():
            listener.abort()
        await self._pusher.stop()
        self._poller.stop()
        await self._acknowledgements.stop()
        self._wheel.stop()
        await self._clock_keeper.stop()
        await self._entry.withdraw()
        if self._rpc is not None:
            await self._rpc.stop(0.0)

    # -- CometService

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push()."""
        return self._admission.push(push)

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """See CometService.delete_key()."""
        await self._admission.admit(key, epoch)
        return await self._deleter.delete_key(key)

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
        return CometStatus(hub.connection_count, hub.channel_count, self._capacity, pushes)

    # -- own affairs

    def _follow(self, members: Members) -> None:
        """Take what changes in the membership, in this order."""
        # The others ask it who owns what.
        members.watch(self._ownership.take)
        members.watch(lambda _: self._mover.take(self._ownership.holdings))
        if self._succession is not None:
            members.watch(self._succession.take)
        # Last: the pushes that waited for this membership must find all of it, and the forwarder ready.
        members.watch(self._epochs.take)

    def _make_standing(self, registry: Registry, members: Members) -> Standing:
        return Standing(
            registry,
            self._ownership,
            self._entry.incarnation,
            refresh=members.refresh,
            is_fenced=self._messages.is_fenced,
            renew=self._entry.renew,
            on_change=lambda: self._mover.take(self._ownership.holdings),
        )

    def _still_owns(self, key: Key) -> bool:
        return (self._standing is None or self._standing.is_sure()) and self._ownership.owns(key)

    def _take_refusal(self, incarnation: str) -> None:
        if self._standing is not None:
            self._standing.take_refusal(incarnation)

    def _add_gauges(self, stats: Stats) -> None:
        hub, pusher = self._hub, self._pusher
        stats.gauge("connections", "Live subscribers.", lambda: hub.connection_count)
        stats.gauge("channels", "Keys with a live subscriber.", lambda: hub.channel_count)
        stats.gauge("capacity", "Subscribers that this process can hold.", lambda: self._capacity)
        stats.gauge("busy_keys", "Keys with a push in progress.", lambda: pusher.busy_key_count)
        stats.gauge("pending_keys", "Results that pushes wait for.", lambda: pusher.pending_key_count)
        stats.gauge("leaving", "Connections of lost keys, to be closed.", lambda: self._mover.leaving_count)
        if (forwarder := self._forwarder) is not None:
            stats.gauge(
                "earlier_owners",
                "Nodes that may hold connections of keys that this one has gained.",
                lambda: forwarder.holding_count,
            )
        stats.gauge("resuming", "Connections that catch up.", lambda: self._resumer.active_count)
