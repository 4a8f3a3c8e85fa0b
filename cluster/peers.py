"""From the registry to calls: a client for every comet and message node that is alive.

Follows a Members. Must be made before anything else that follows it, so that
whoever learns of a node finds its client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cluster.contracts import comet_rpc, message_rpc
from cluster.contracts.comet import CometService
from cluster.contracts.comet_rpc import CometStub
from cluster.contracts.message import MessageNodeService, MessageStatus
from cluster.contracts.message_rpc import MessageNodes, MessageStub, MessageTimeouts
from cluster.contracts.web import WebNodeService
from cluster.errors import UnavailableError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import NodeInfo, NodeKind
from cluster.rpc.balancer import Balancer
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.metrics import ClientMetrics
from cluster.rpc.pool import ClientPool


@dataclass(frozen=True, slots=True)
class NodeServices:
    """The service of each registered instance, by its kind."""

    comets: Callable[[NodeInfo], CometService]
    messages: Callable[[NodeInfo], MessageNodeService]
    webs: Callable[[NodeInfo], WebNodeService]


class CometPeers:
    """The comet nodes, each by its entry in the registry."""

    def __init__(self, members: Members, rpc: RpcConfig, metrics: ClientMetrics | None = None) -> None:
        """Begin to connect to those that are registered; needs a running loop."""
        self._pool = ClientPool(lambda address: RpcClient(address, comet_rpc.SERVICE, rpc, metrics=metrics))
        self._stubs: dict[str, CometStub] = {}
        members.watch(self._take)

    @property
    def clients(self) -> list[RpcClient]:
        """Of those that are registered."""
        return self._pool.clients

    def of(self, node: NodeInfo) -> CometStub:
        """The service of an instance; of one that has gone meanwhile one that is not available."""
        stub = self._stubs.get(node.instance)
        return self._stub_of_nobody(node) if stub is None else stub

    async def stop(self) -> None:
        """End all connections; calls in flight fail."""
        await self._pool.stop()

    def _take(self, membership: Membership) -> None:
        clients = self._pool.replace(_addresses(membership.of_kind(NodeKind.COMET)))
        self._stubs = {
            instance: kept
            if (kept := self._stubs.get(instance)) is not None and kept.client is client
            else CometStub(client)
            for instance, client in clients.items()
        }

    def _stub_of_nobody(self, node: NodeInfo) -> CometStub:
        # Never started: each call is answered as not sent.
        address = next(iter(node.addresses.get("rpc", ())), "127.0.0.1:0")
        client = RpcClient(address, comet_rpc.SERVICE, RpcConfig())
        return CometStub(client)


class MessagePeers:
    """The message nodes as one service."""

    def __init__(
        self,
        members: Members,
        rpc: RpcConfig,
        timeouts: MessageTimeouts,
        metrics: ClientMetrics | None = None,
    ) -> None:
        """Begin to connect to those that are registered; needs a running loop."""
        self._timeouts = timeouts
        self._pool = ClientPool(lambda address: RpcClient(address, message_rpc.SERVICE, rpc, metrics=metrics))
        self._balancer: Balancer[MessageStub] = Balancer()
        self._stubs: dict[str, MessageStub] = {}
        self.service = MessageNodes(self._balancer)
        members.watch(self._take)

    @property
    def clients(self) -> list[RpcClient]:
        """Of those that are registered and do not drain."""
        return self._pool.clients

    def of(self, node: NodeInfo) -> MessageNodeService:
        """One node; of one that has gone, or drains, one that is not available."""
        return self._stubs.get(node.instance) or _NoMessageNode()

    async def stop(self) -> None:
        """End all connections; calls in flight fail."""
        await self._pool.stop()

    def _take(self, membership: Membership) -> None:
        nodes = [node for node in membership.of_kind(NodeKind.MESSAGE) if not node.is_draining]
        addresses = _addresses(nodes)
        clients = self._pool.replace(addresses)
        # Chosen by address: all nodes know it alike, and it stays when a node is started again.
        # Of two entries that name one address the later is of the process that has it now.
        self._stubs = {name: MessageStub(client, self._timeouts) for name, client in clients.items()}
        self._balancer.replace(
            {
                addresses[node.instance]: (self._stubs[node.instance], node.weight)
                for node in nodes
                if node.instance in addresses
            }
        )


class _NoMessageNode:
    """Implements MessageNodeService where there is none."""

    async def status(self) -> MessageStatus:
        """Say so."""
        raise UnavailableError("it takes no calls")


def _addresses(nodes: Iterable[NodeInfo]) -> dict[str, str]:
    """Where each instance is called."""
    return {node.instance: node.addresses["rpc"][0] for node in nodes if node.addresses.get("rpc")}
