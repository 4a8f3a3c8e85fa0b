"""The node listing: who is registered, who has just gone, and what each says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from cluster.contracts.message import Guarantee
from cluster.errors import EnckeError, UnavailableError
from cluster.members import MAX_POINTS_ON_LOOP, Members
from cluster.membership import Membership
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.peers import NodeServices
from cluster.registry.base import SessionState
from cluster.ring import Ring, point_count
from web.api.departures import Departures
from web.codec.replies import Answer, v2
from web.serving.request import Request


class NodeView(msgspec.Struct, frozen=True):
    """One instance in GET /2/admin/nodes."""

    kind: str
    name: str
    instance: str
    # "serving", "standby" (another instance of the name serves, or its weight is 0), "draining";
    # of those that are not registered any more "left" (after a drain) or "died".
    state: str
    addresses: dict[str, tuple[str, ...]]
    weight: int
    version: str
    # Of one that has gone: when it went. 0 when it does not say since when it runs.
    uptime_s: float
    # Since when it is gone; null while it is registered.
    gone_s: float | None = None
    # Of the keys; null for what is not in the ring.
    share: float | None = None
    # Subscribers of a comet node, callers of a message node, HTTP connections of a web node. Null, as
    # all below, when the node did not tell.
    connections: int | None = None
    # Since the node was started: keys pushed to, messages stored, pushes asked for.
    pushes: int | None = None
    # Comet nodes only.
    channels: int | None = None
    capacity: int | None = None
    # Message nodes only: what each server of the store makes of an answered push, and which are away.
    stores: list[Guarantee] | None = None
    # Why a registered node did not tell; null when it did.
    fault: str | None = None


class NodesView(msgspec.Struct, frozen=True):
    """GET /2/admin/nodes."""

    nodes: list[NodeView]
    # Of the web node that answers: "connected", or else the list may be out of date.
    registry: str


class _Numbers(msgspec.Struct, frozen=True):
    """What a node tells of itself, whichever kind it is."""

    connections: int
    pushes: int
    channels: int | None = None
    capacity: int | None = None
    stores: list[Guarantee] | None = None
    # Why it does not serve, though it answers.
    fault: str | None = None


class NodeListing:
    """The handler of the route."""

    def __init__(
        self,
        members: Members,
        services: NodeServices,
        departures: Departures,
        session: Callable[[], SessionState],
        *,
        timeout_s: float,
        unix_time: Callable[[], float],
    ) -> None:
        """Make it.

        Args:
            session: how this process stands with the registry.
            timeout_s: for each node to tell its numbers; all are asked at once.
        """
        self._members = members
        self._services = services
        self._departures = departures
        self._session = session
        self._timeout_s = timeout_s
        self._unix_time = unix_time
        # The last ring, with its shares.
        self._counted: tuple[Ring, dict[NodeName, float]] | None = None

    async def nodes(self, _: Request) -> Answer:
        """GET /2/admin/nodes: every node, whether it answers or not."""
        membership = self._members.current
        told = await asyncio.gather(*(self._ask(node) for node in membership.nodes))
        shares = await self._shares(membership.ring)
        views = [
            self._view(
                node,
                _state(membership, node),
                share=shares.get(node.name) if membership.is_serving(node) else None,
                told=answer,
            )
            for node, answer in zip(membership.nodes, told, strict=True)
        ]
        for departure, gone_s in self._departures.recent():
            state = "left" if departure.is_orderly else "died"
            views.append(self._view(departure.node, state, gone_s=gone_s))
        return v2(NodesView(views, self._session().value))

    async def _shares(self, ring: Ring) -> dict[NodeName, float]:
        """Counted once per ring: of a large one it takes a tenth of a second."""
        if self._counted is not None and self._counted[0] is ring:
            return self._counted[1]
        is_large = point_count(ring.weights) > MAX_POINTS_ON_LOOP
        shares = await asyncio.to_thread(ring.shares) if is_large else ring.shares()
        self._counted = ring, shares
        return shares

    async def _ask(self, node: NodeInfo) -> _Numbers | str:
        """A node's numbers, or why there are none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._numbers(node)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except EnckeError as error:
            return str(error) or error.code

    async def _numbers(self, node: NodeInfo) -> _Numbers:
        match node.kind:
            case NodeKind.COMET:
                comet = await self._services.comets(node).status()
                if comet.name not in ("", node.name):
                    raise UnavailableError(f"{comet.name} answers at its address: see comet.rpc_advertise")
                return _Numbers(
                    comet.connections, comet.pushes, comet.channels, comet.capacity, fault=comet.fault
                )
            case NodeKind.MESSAGE:
                if node.is_draining:
                    raise UnavailableError("it takes no more calls")
                message = await self._services.messages(node).status()
                return _Numbers(message.connections, message.saved, stores=message.stores)
            case NodeKind.WEB:
                web = await self._services.webs(node).status()
                return _Numbers(web.connections, web.pushes)

    def _view(
        self,
        node: NodeInfo,
        state: str,
        *,
        share: float | None = None,
        gone_s: float | None = None,
        told: _Numbers | str | None = None,
    ) -> NodeView:
        numbers = told if isinstance(told, _Numbers) else None
        uptime_s = self._unix_time() - (gone_s or 0.0) - node.started_at if node.started_at else 0.0
        return NodeView(
            kind=node.kind.value,
            name=node.name,
            instance=node.instance,
            state=state,
            addresses=node.addresses,
            weight=node.weight,
            version=node.version,
            uptime_s=round(max(0.0, uptime_s), 3),
            gone_s=None if gone_s is None else round(gone_s, 3),
            share=share,
            connections=numbers.connections if numbers else None,
            pushes=numbers.pushes if numbers else None,
            channels=numbers.channels if numbers else None,
            capacity=numbers.capacity if numbers else None,
            stores=numbers.stores if numbers else None,
            fault=told.fault if isinstance(told, _Numbers) else told,
        )


def _state(membership: Membership, node: NodeInfo) -> str:
    if node.is_draining:
        return "draining"
    if node.kind is NodeKind.COMET and not membership.is_serving(node):
        return "standby"
    if node.kind is NodeKind.MESSAGE and not node.weight:
        # Nobody chooses it.
        return "standby"
    return "serving"
