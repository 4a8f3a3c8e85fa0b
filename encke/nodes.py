"""One node in a process of its own: the composition behind `encke comet`, `encke message` and `encke web`.

What `encke serve` puts together in one process meets here over TCP: the
other nodes are clients that follow the registry, which is ZooKeeper, or for
the workers of one machine the process that started them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from cluster.addresses import is_loopback, is_unspecified, split_address
from cluster.contracts.comet import CometStatus
from cluster.contracts.message import MessageService, MessageStatus
from cluster.contracts.message_rpc import MessageTimeouts
from cluster.contracts.web import STATUS_PATH, WebStatus
from cluster.contracts.web_http import WebStub
from cluster.errors import EnckeError
from cluster.limits import connection_capacity, free_descriptors, http_capacity, raise_descriptor_limit
from cluster.members import Members
from cluster.model import NodeKind
from cluster.peers import CometPeers, MessagePeers, NodeServices
from cluster.process import add_process_gauges
from cluster.registry.base import Registry, SessionState
from cluster.rpc.client import RpcClient
from cluster.rpc.metrics import ClientMetrics
from cluster.service import ServiceTasks
from cluster.stats import Stats
from cluster.status import StatusListener
from comet.config import CometConfig
from encke.announcing import READY, Line, Room, identity, listening, storing
from encke.config import EnckeConfig
from encke.listeners import status_listener
from encke.parts import Parts, build_store

log = logging.getLogger(__name__)

# What a node says as long as it is not registered.
STARTING = "starting"
# Pause between attempts of a starting comet node to reach a message node.
STORE_RETRY_S = 0.2
# And between looks of a starting web node whether one lets it in.
PEER_RETRY_S = 0.05
# Without one for this long, it says so: every start comes before the first look at the registry.
STORE_QUIET_S = 1.0


class Node(Protocol):
    """What the three kinds have in common."""

    @property
    def addresses(self) -> dict[str, str]: ...
    def ready_fault(self) -> str | None: ...
    def notes(self) -> list[str]: ...
    async def status(self) -> CometStatus | MessageStatus | WebStatus: ...
    async def start(self) -> None: ...
    async def drain(self, timeout_s: float) -> None: ...
    async def stop(self) -> None: ...


class NodeRegistry(Registry, Protocol):
    """A registry that reaches beyond this process."""

    @property
    def fault(self) -> str | None:
        """Why nobody can be announced, or what is to be announced is not. None = no reason is known."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class NodeProcess:
    """The application of one node of a cluster; implements cluster.service.Application."""

    def __init__(
        self,
        kind: NodeKind,
        config: EnckeConfig,
        stats: Stats,
        say: Callable[[str], None],
        registry: NodeRegistry,
    ) -> None:
        """Build nothing yet.

        Args:
            say: takes the lines for standard output.
            registry: not started yet; the process starts and stops it.
        """
        self._kind = kind
        self._config = config
        self._stats = stats
        self._say = say
        # Of the status port; of a web node, once it is built.
        self._documents: dict[str, Callable[[], str]] = {}
        status_bind = status_listener(kind.value).address(config)
        self._status = StatusListener(status_bind, stats, self._ready_fault, self._notes, self._documents)
        self._registry = registry
        self._members = Members(self._registry)
        self._parts = Parts(config, stats, self._registry, self._members, config.rpc)
        self._rpc_metrics = ClientMetrics(stats)
        self._peers: list[CometPeers | MessagePeers] = []
        self._node: Node | None = None
        # What the start waits for, with the last reason why it is not there; empty = nothing.
        self._waits_for = ""
        self._is_draining = False

    async def start(self, tasks: ServiceTasks) -> None:
        """Follow the registry, then build and start the node. Waits for a ZooKeeper that is away.

        Raises:
            ConfigError: the operator must act.
            OSError: an address cannot be bound.
        """
        # First, so that a probe is answered while the node waits for others.
        status = await self._status.start()
        await self._registry.start()
        match self._kind:
            case NodeKind.COMET:
                self._node = node = await self._build_comet(tasks)
            case NodeKind.MESSAGE:
                self._node = node = self._build_message(tasks)
            case NodeKind.WEB:
                self._node = node = self._build_web(status)
                # Whoever asked it before would be told that nobody serves the key.
                await self._members.wait_known()
                await self._wait_let_in()
        await node.start()
        self._warn_of_open_rpc(node)
        add_process_gauges(self._stats)
        addresses = {**node.addresses, **self._status.addresses}
        for line in (*listening(addresses), *_promises(await node.status())):
            self._say(str(line))
        self._say(READY)

    def announce_drain(self) -> None:
        """See Application.announce_drain()."""
        self._is_draining = True

    async def drain(self, timeout_s: float) -> None:
        """Leave, finish what was accepted, unregister."""
        if self._node is not None:
            await self._node.drain(timeout_s)

    async def stop(self) -> None:
        """Release everything; the registry session last, and with it what still stands there."""
        await self._status.stop()
        if self._node is not None:
            await self._node.stop()
        await asyncio.gather(*(peers.stop() for peers in self._peers))
        self._members.close()
        await self._registry.stop()

    async def _build_comet(self, tasks: ServiceTasks) -> Node:
        messages = self._message_peers().service
        await self._wait_store(messages)
        capacity = connection_capacity(raise_descriptor_limit(), self._config.process.reserve_descriptors)
        peers = CometPeers(self._members, self._config.rpc, self._rpc_metrics)
        self._peers.append(peers)
        for warning in unknown_hosts(self._config.comet):
            log.warning("%s", warning)
        node = self._parts.comet(self._config.comet, messages, capacity, peers.of)
        tasks.spawn("standing", node.run())
        return node

    def _build_message(self, tasks: ServiceTasks) -> Node:
        node = self._parts.message(build_store(self._config, self._stats), self._rpc_metrics)
        tasks.spawn("store", node.run())
        return node

    def _build_web(self, status_address: str) -> Node:
        messages = self._message_peers()
        comets = CometPeers(self._members, self._config.rpc, self._rpc_metrics)
        self._peers.append(comets)
        services = NodeServices(comets.of, messages.of, WebStub)
        capacity = http_capacity(free_descriptors(raise_descriptor_limit()))
        node = self._parts.web(messages.service, services, capacity, status_address)
        self._documents[STATUS_PATH] = lambda: msgspec.json.encode(node.numbers()).decode()
        return node

    def _message_peers(self) -> MessagePeers:
        peers = MessagePeers(self._members, self._config.rpc, MessageTimeouts(), self._rpc_metrics)
        self._peers.append(peers)
        return peers

    async def _wait_let_in(self) -> None:
        """Wait until a peer lets this node in; not for peers that are away, nor where there are none."""
        while True:
            clients = self._clients()
            refusals = [refusal for client in clients if (refusal := client.refusal) is not None]
            is_up = any(client.is_up for client in clients)
            if is_up or not (refusals or any(not client.was_tried for client in clients)):
                break
            self._waits_for = ": ".join(["waiting for a comet or message node", *refusals[:1]])
            await asyncio.sleep(PEER_RETRY_S)
        self._waits_for = ""

    async def _wait_store(self, messages: MessageService) -> None:
        """Wait until a message node answers; nodes of a cluster are started in any order."""
        loop = asyncio.get_running_loop()
        tell_at = loop.time() + STORE_QUIET_S
        while True:
            try:
                await messages.clock()
                break
            except EnckeError as error:
                self._waits_for = f"waiting for a message node: {error}"
                if loop.time() >= tell_at:
                    log.warning("waiting for a message node: reason=%s", error)
                    tell_at = math.inf
                await asyncio.sleep(STORE_RETRY_S)
        self._waits_for = ""

    def _clients(self) -> list[RpcClient]:
        return [client for peers in self._peers for client in peers.clients]

    def _ready_fault(self) -> str | None:
        if self._is_draining:
            return "draining"
        if self._kind is NodeKind.WEB and (refusal := _refusal(self._clients())) is not None:
            return f"no comet or message node takes calls: {refusal}"
        fault = STARTING if self._node is None else self._node.ready_fault()
        if fault == STARTING and (reason := self._registry.fault or self._waits_for):
            return f"{fault}: {reason}"
        if fault is not None:
            return fault
        if self._registry.session is SessionState.LOST:
            return "not registered: the session has ended"
        return None

    def _notes(self) -> list[str]:
        command = self._kind.value
        own = identity(command, getattr(self._config, command).name)
        return [own, *(() if self._node is None else self._node.notes())]

    def _warn_of_open_rpc(self, node: Node) -> None:
        bound = node.addresses.get("rpc")
        if bound is None or self._config.rpc.secret:
            return
        host, _ = split_address(bound)
        if not is_loopback(host):
            log.warning("others can call this node at %s without a secret: set rpc.secret", bound)


def _promises(status: CometStatus | MessageStatus | WebStatus) -> Sequence[Line]:
    """What a node has started with, in the words for its operator."""
    match status:
        case CometStatus():
            return [Room(status.capacity)]
        case MessageStatus():
            return storing(status.stores)
        case WebStatus():
            return []


def unknown_hosts(config: CometConfig) -> list[str]:
    """What to warn of when subscribers may be sent to the web node's host for a comet node on another one.

    With calls on loopback only, all nodes are on one host, and it is right.
    """
    host, _ = split_address(config.rpc_bind)
    if is_loopback(host):
        return []
    return [
        f"subscribers are sent to the host of the web node that they ask: set comet.{kind}_advertise"
        for kind, bind, advertise in (
            ("ws", config.ws_bind, config.ws_advertise),
            ("tcp", config.tcp_bind, config.tcp_advertise),
        )
        if bind and not advertise and is_unspecified(split_address(bind)[0])
    ]


def _refusal(clients: Sequence[RpcClient]) -> str | None:
    """What the first peer says when all refuse this node: not they are wrong then, but its settings.

    Peers that are away, or none at all, are not its fault: a web node that is right stays ready without them.
    """
    refusals = [client.refusal for client in clients]
    return refusals[0] if refusals and None not in refusals else None
