"""The keys of a node: which are its, what is carried out for them, how they come and go.

Builds the parts that decide this, and runs their lives. Knows nothing of sockets.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.contracts.handover import HandoverService
from cluster.contracts.message import MessageService
from cluster.members import Members
from cluster.model import Epoch, Key, NodeInfo, NodeName
from cluster.registry.base import Registry
from cluster.stats import Stats
from cluster.storeclocks import StoreClocks
from comet.config import CometConfig
from comet.handover.moving import Mover
from comet.handover.succession import Succession
from comet.handover.yielding import Yielding
from comet.metrics import CometMetrics
from comet.ownership.entry import CometEntry
from comet.ownership.epochs import EpochGate
from comet.ownership.ownership import Ownership
from comet.ownership.standing import Standing
from comet.pushing.admission import Admission
from comet.pushing.deleting import Deleter
from comet.pushing.forwarding import Forwarder
from comet.pushing.push import Pusher
from comet.subscribers.acknowledgements import Acknowledgements
from comet.subscribers.filling import Filler
from comet.subscribers.hub import Hub


class Keys:
    """What a node does as the owner of keys, and as an earlier owner."""

    def __init__(
        self,
        config: CometConfig,
        registry: Registry,
        members: Members,
        entry: CometEntry,
        messages: MessageService,
        hub: Hub,
        clocks: StoreClocks,
        acknowledgements: Acknowledgements,
        metrics: CometMetrics,
        *,
        peers: Callable[[NodeInfo], HandoverService] | None,
    ) -> None:
        """Own nothing yet; needs a running loop.

        Args:
            entry: is announced and taken back here.
            peers: the other comet nodes; None = there are none, keys stay here.
        """
        filler = Filler(messages, hub, metrics, config.store_timeout_s)
        self.entry = entry
        self.ownership = Ownership(NodeName(config.name), members.current)
        # In one process nobody else can take keys away.
        self.standing: Standing | None = None
        if entry.is_in_cluster:
            self.standing = Standing(
                registry,
                self.ownership,
                entry.incarnation,
                refresh=members.refresh,
                is_fenced=messages.is_fenced,
                renew=entry.renew,
                on_change=self._send_away,
            )
        self.forwarder = None if peers is None else Forwarder(entry.is_own, metrics)
        self.pusher = Pusher(
            messages,
            hub,
            clocks,
            config,
            metrics,
            filler,
            self.forwarder,
            incarnation=entry.incarnation,
            owns=self._still_owns,
            on_fenced=self._take_refusal,
        )
        self._mover = Mover(hub, self.pusher, config.close_pace_per_s)
        self._succession: Succession | None = None
        if peers is not None and self.forwarder is not None:
            self._succession = Succession(
                members,
                self.forwarder,
                hub,
                self.pusher,
                filler,
                metrics,
                peers=peers,
                is_fenced=messages.is_fenced,
                is_own=entry.is_own,
            )
        self._epochs = EpochGate(members, config.membership_wait_s)
        self.admission = Admission(self.ownership, self.standing, self._epochs, self.pusher)
        self._deleter = Deleter(
            messages, hub, self.pusher, acknowledgements, self.forwarder, config.store_timeout_s
        )
        self.yielding = Yielding(
            members,
            self._epochs,
            self.ownership,
            hub,
            self.pusher,
            self._mover,
            filler,
            self._deleter,
            metrics,
        )
        self._follow(members)

    def _follow(self, members: Members) -> None:
        """Take what changes in the membership, in this order."""
        # The others ask it who owns what.
        members.watch(self.ownership.take)
        members.watch(lambda _: self._send_away())
        if self._succession is not None:
            members.watch(self._succession.take)
        # Last: the pushes that waited for this membership must find all of it, and the forwarder ready.
        members.watch(self._epochs.take)

    async def start(self, addresses: dict[str, str]) -> None:
        """Register, and own what the membership gives from then on.

        Args:
            addresses: bound "host:port" by purpose.

        Raises:
            EnckeError: the registry did not take it.
        """
        self.entry.announce_at(addresses)
        if self._succession is not None:
            self._succession.start()
        self.ownership.serve_at(self.entry.addresses, self.entry.predecessors)
        await self.entry.register()
        if self.standing is not None:
            self.standing.start()

    def fault(self) -> str | None:
        """Why the node serves no key now. None = it is registered and serves those that it has."""
        if not self.entry.is_registered:
            return "starting"
        return None if self.standing is None else self.standing.fault()

    async def wait_failed(self) -> None:
        """Return when nothing watches over the registration, because nobody can take keys away.

        Raises:
            Exception: the bug that has ended the watching.
        """
        if self.standing is not None:
            await self.standing.wait_failed()

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """See CometService.delete_key()."""
        await self.admission.admit(key, epoch)
        return await self._deleter.delete_key(key)

    async def leave(self) -> None:
        """Leave the ring: whom the node still has, it keeps until the caller closes them."""
        await self._mover.stop()
        if self._succession is not None:
            await self._succession.stop()
        await self.entry.leave_ring()

    async def stop(self) -> None:
        """Follow no changes any more; nobody waits for one. The caller ends the pusher and the entry."""
        if self.standing is not None:
            await self.standing.stop()
        if self._succession is not None:
            await self._succession.stop()
        await self._mover.stop()
        await self._epochs.stop()

    def add_gauges(self, stats: Stats) -> None:
        """Tell how much is in progress."""
        pusher = self.pusher
        stats.gauge("busy_keys", "Keys with a push in progress.", lambda: pusher.busy_key_count)
        stats.gauge("pending_keys", "Results that pushes wait for.", lambda: pusher.pending_key_count)
        stats.gauge("leaving", "Connections of lost keys, to be closed.", lambda: self._mover.leaving_count)
        if (forwarder := self.forwarder) is not None:
            stats.gauge(
                "earlier_owners",
                "Nodes that may hold connections of keys that this one has gained.",
                lambda: forwarder.holding_count,
            )

    def _send_away(self) -> None:
        self._mover.take(self.ownership.holdings)

    def _still_owns(self, key: Key) -> bool:
        return (self.standing is None or self.standing.is_sure()) and self.ownership.owns(key)

    def _take_refusal(self, incarnation: str) -> None:
        if self.standing is not None:
            self.standing.take_refusal(incarnation)
