"""A comet node: builds all its parts and runs its life. The only file that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from cluster.contracts.comet import CometStatus, ConnectionInfo, Push, PushReply
from cluster.contracts.comet_rpc import SERVICE, comet_routes, handover_routes
from cluster.contracts.handover import HandoverService
from cluster.contracts.message import MessageService
from cluster.errors import EnckeError, UnavailableError
from cluster.members import Members
from cluster.model import Epoch, Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registration, Registry
from cluster.rpc.config import RpcConfig
from cluster.rpc.server import RpcServer
from cluster.settings import advertised_address
from cluster.stats import Stats
from cluster.storeclocks import StoreClocks
from cluster.tokens import TokenVerifier
from comet.acknowledgements import Acknowledgements
from comet.admission import Admission
from comet.catchup import Resumer
from comet.closing import close_paced
from comet.config import CometConfig
from comet.door import OpenSockets
from comet.epochs import EpochGate
from comet.filling import Filler
from comet.forwarding import Forwarder
from comet.hub import Hub
from comet.listener import Listener, start_tcp, start_websocket
from comet.metrics import CometMetrics
from comet.moving import Mover
from comet.ownership import Ownership
from comet.protocol import CloseReason
from comet.push import Pusher
from comet.reception import Reception
from comet.standing import Standing
from comet.succession import Succession
from comet.timers import TimerWheel
from comet.yielding import Yielding

log = logging.getLogger(__name__)

# For what this node announces to come back from the registry.
NOTICE_S = 1.0
# The store's clock is asked for this often when no save brings it along.
CLOCK_REFRESH_S = 5.0
# A deletion waits so long for earlier owners of the key to close what they still hold.
CLOSE_ELSEWHERE_S = 1.0


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
        self._instance = instance
        self._version = version
        self._messages = messages
        self._registry = registry
        self._members = members
        self._registration: Registration | None = None
        self._started_at = unix_time()
        self._capacity = min(capacity, config.max_connections or capacity)
        self._clocks = StoreClocks(time.monotonic_ns)
        self._hub = Hub(self._clocks, config.max_connections_per_key, loop.call_later)
        self._is_in_cluster = rpc is not None
        self._ownership = Ownership(members, NodeName(config.name))
        # In one process nobody else can take keys away.
        self._standing = None if rpc is None else self._make_standing()
        self._own_addresses: dict[str, tuple[str, ...]] | None = None
        self._predecessors: frozenset[str] = frozenset()
        self._forwarder = None if peers is None else Forwarder(self._is_own_entry, metrics)
        self._pusher = Pusher(
            messages,
            self._hub,
            self._clocks,
            config,
            metrics,
            self._incarnation,
            self._still_owns,
            None if self._standing is None else self._standing.take_refusal,
            self._forwarder,
        )
        self._resumer = Resumer(messages, self._clocks, config, metrics)
        self._acknowledgements = Acknowledgements(
            messages, config.acknowledge_interval_s, config.store_timeout_s, metrics
        )
        self._wheel = TimerWheel(loop)
        self._sockets = OpenSockets(self._capacity)
        filler = Filler(messages, self._hub, metrics, config.store_timeout_s)
        # In this order, after the ownership: what follows a change of the membership asks who owns
        # what, and what waited for it goes on last.
        self._mover = Mover(self._hub, self._pusher, config.close_pace_per_s)
        members.on_change.append(lambda _: self._mover.take(self._ownership.holdings))
        self._succession = None
        if peers is not None and self._forwarder is not None:
            self._succession = Succession(
                members,
                self._forwarder,
                peers,
                messages.is_fenced,
                self._is_own_entry,
                self._hub,
                self._pusher,
                filler,
                metrics,
            )
        self._epochs = EpochGate(members, config.membership_wait_s)
        self._admission = Admission(self._ownership, self._standing, self._epochs, self._pusher)
        self._yielding = Yielding(
            members,
            self._epochs,
            self._ownership,
            self._hub,
            self._pusher,
            self._mover,
            filler,
            metrics,
            self._acknowledgements.forget,
        )
        routes = [*comet_routes(self), *handover_routes(self._yielding)]
        self._rpc = None if rpc is None else RpcServer(SERVICE, routes, rpc, stats=stats)
        self._is_draining = False
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
        """Bound "host:port" by purpose ("ws", "tcp", in a cluster "rpc"), once started."""
        bound = {purpose: listener.address for purpose, listener in self._listeners.items()}
        return bound if self._rpc is None else {**bound, "rpc": self._rpc.address}

    @property
    def is_ready(self) -> bool:
        """Registered, and the store's clock is known."""
        return self._registration is not None and self._clocks.is_known

    async def start(self) -> None:
        """Listen, then register.

        Raises:
            OSError: an address cannot be bound.
            EnckeError: the store did not answer.
        """
        await self._ask_clocks()
        self._clock_task = asyncio.create_task(self._keep_clocks())
        self._wheel.start()
        way_in = (self._config, self._reception, self._wheel, self._sockets)
        self._listeners["ws"] = await start_websocket(*way_in)
        self._listeners["tcp"] = await start_tcp(*way_in)
        if self._rpc is not None:
            await self._rpc.start(self._config.rpc_bind)
        info = self._info(is_draining=False)
        self._know_own_entry(info.addresses)
        if self._succession is not None:
            self._succession.start()
        self._ownership.serve_at(info.addresses)
        self._registration = await self._registry.register(info)
        await self._see_own_entry()
        if self._standing is not None:
            self._standing.start()

    async def drain(self, timeout_s: float) -> None:
        """Leave the ring, finish pushes, close subscribers with 1001 spread over the time, unregister.

        Bounded by the timeout; what is not done by then is cut by stop().
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        self._is_draining = True
        await self._mover.stop()
        if self._succession is not None:
            await self._succession.stop()
        self._reception.drain()
        await self._leave_ring()
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
        await self._acknowledgements.stop()
        self._wheel.stop()
        if self._clock_task is not None:
            self._clock_task.cancel()
            await asyncio.gather(self._clock_task, return_exceptions=True)
        if self._registration is not None:
            await self._registration.withdraw()
            self._registration = None
        if self._rpc is not None:
            await self._rpc.stop(0.0)

    # -- CometService

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push()."""
        return self._admission.push(push)

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """See CometService.delete_key()."""
        await self._admission.admit(key, epoch)
        deleted = 0

        async def turn() -> None:
            nonlocal deleted
            self._acknowledgements.forget(key)
            async with asyncio.timeout(self._config.store_timeout_s):
                deleted = await self._messages.delete_key(key)
            self._hub.close_key(key, CloseReason.DELETED)
            if self._forwarder is not None and self._forwarder.is_active:
                await self._forwarder.close_key(key, CLOSE_ELSEWHERE_S)
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
        hub = self._hub
        pushes = self._metrics.pushes.value
        return CometStatus(hub.connection_count, hub.channel_count, self._capacity, pushes)

    # -- own affairs

    def _incarnation(self) -> str:
        """What the store's fence knows this node by; nobody fences a node of the same process."""
        if not self._is_in_cluster or self._registration is None:
            return ""
        return self._registration.instance

    def _know_own_entry(self, addresses: dict[str, tuple[str, ...]]) -> None:
        """What stands at these addresses before this node registers was left behind by another process."""
        self._own_addresses = addresses
        nodes = self._members.current.of_kind(NodeKind.COMET)
        self._predecessors = frozenset(node.instance for node in nodes if node.addresses == addresses)

    def _is_own_entry(self, node: NodeInfo) -> bool:
        return node.addresses == self._own_addresses and node.instance not in self._predecessors

    def _make_standing(self) -> Standing:
        return Standing(
            self._registry,
            self._ownership,
            self._incarnation,
            refresh=self._members.refresh,
            is_fenced=self._messages.is_fenced,
            renew=self._register_anew,
            on_change=lambda: self._mover.take(self._ownership.holdings),
        )

    def _still_owns(self, key: Key) -> bool:
        return (self._standing is None or self._standing.is_sure()) and self._ownership.owns(key)

    async def _register_anew(self) -> None:
        """Be another incarnation."""
        if self._registration is None or self._is_draining:
            return
        await self._registration.withdraw()
        self._registration = await self._registry.register(self._info(is_draining=False))

    async def _leave_ring(self) -> None:
        """Mark the own entry, and see it marked: from then on pushes are answered NotOwner."""
        if self._registration is None:
            return
        await self._registration.update(self._info(is_draining=True))
        await self._see_own_entry()

    async def _see_own_entry(self) -> None:
        """Wait a little until what this node has just announced has come back in its own membership."""
        with contextlib.suppress(EnckeError, TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                await self._members.refresh()

    def _info(self, is_draining: bool) -> NodeInfo:
        config = self._config
        advertised = {
            "ws": config.ws_advertise,
            "tcp": config.tcp_advertise,
            "rpc": config.rpc_advertise,
        }
        return NodeInfo(
            kind=NodeKind.COMET,
            name=NodeName(self._config.name),
            instance=self._instance,
            addresses={
                purpose: (advertised_address(advertised[purpose], bound),)
                for purpose, bound in self.addresses.items()
            },
            weight=self._config.weight,
            is_draining=is_draining,
            version=self._version,
            started_at=self._started_at,
        )

    async def _ask_clocks(self) -> None:
        asked_at_ns = time.monotonic_ns()
        self._clocks.take(await self._messages.clocks(), asked_at_ns)

    async def _keep_clocks(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_REFRESH_S)
            try:
                async with asyncio.timeout(self._config.store_timeout_s):
                    await self._ask_clocks()
            except (EnckeError, TimeoutError) as error:
                log.debug("stores' clocks not refreshed: reason=%r", error)

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
