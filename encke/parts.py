"""Builds the nodes from the configuration: the same for one process and for a cluster.

Each kind is imported where it is built: a process of one node needs neither
the memory nor the time that the others cost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.contracts.handover import HandoverService
from cluster.contracts.message import MessageService
from cluster.members import Members
from cluster.model import NodeInfo
from cluster.peers import NodeServices
from cluster.registry.base import Registry
from cluster.rpc.config import RpcConfig
from cluster.rpc.metrics import ClientMetrics
from cluster.stats import Stats
from cluster.tokens import TokenVerifier
from comet.config import CometConfig
from encke.config import EnckeConfig
from encke.version import encke_version
from message.storage.base import MessageStore

if TYPE_CHECKING:
    from comet.app import CometNode
    from message.app import MessageNode
    from web.app import WebNode


class Parts:
    """What every node of a process is built from."""

    def __init__(
        self,
        config: EnckeConfig,
        stats: Stats,
        registry: Registry,
        members: Members,
        rpc: RpcConfig | None = None,
    ) -> None:
        """Keep them.

        Args:
            rpc: how other processes call the nodes; None = they are all in this one.
        """
        self.config = config
        self.stats = stats
        self.registry = registry
        self.members = members
        self._rpc = rpc

    def comet(
        self,
        config: CometConfig,
        messages: MessageService,
        capacity: int,
        peers: Callable[[NodeInfo], HandoverService] | None = None,
    ) -> CometNode:
        """A comet node.

        Args:
            config: as configured, or with other addresses to advertise.
            capacity: connections that the process can hold.
            peers: the other comet nodes; None = there are none.
        """
        from comet.app import CometNode

        return CometNode(
            config,
            capacity=capacity,
            instance=secrets.token_hex(8),
            version=encke_version(),
            messages=messages,
            registry=self.registry,
            members=self.members,
            verifier=TokenVerifier(self.config.auth.secrets),
            stats=self.stats,
            rpc=self._rpc,
            peers=peers,
        )

    def message(self, store: MessageStore, metrics: ClientMetrics | None = None) -> MessageNode:
        """A message node.

        Args:
            metrics: of what this process calls; None = it calls nobody.
        """
        from message.app import MessageNode

        return MessageNode(
            self.config.message,
            store=store,
            instance=secrets.token_hex(8),
            version=encke_version(),
            registry=self.registry,
            members=self.members,
            stats=self.stats,
            rpc=self._rpc,
            metrics=metrics,
        )

    def web(
        self,
        messages: MessageService,
        services: NodeServices,
        capacity: int,
        status_address: str = "",
        *,
        may_lose_answers: bool = True,
    ) -> WebNode:
        """A web node.

        Args:
            capacity: connections that each of its two listeners can have.
            status_address: where its own status port is bound; empty = it has none of its own.
            may_lose_answers: see WebNode.
        """
        from web.app import WebNode

        return WebNode(
            self.config.web,
            capacity=capacity,
            instance=secrets.token_hex(8),
            version=encke_version(),
            messages=messages,
            registry=self.registry,
            members=self.members,
            services=services,
            status_address=status_address,
            may_lose_answers=may_lose_answers,
            verifier=TokenVerifier(self.config.auth.secrets),
            stats=self.stats,
        )


def build_store(config: EnckeConfig, stats: Stats) -> MessageStore:
    """The store that message.store names, not open yet.

    Raises:
        ConfigError: the address of a server is wrong.
    """
    match config.message.store:
        case "redis":
            from message.storage.build import build_redis_store

            return build_redis_store(config.redis, config.message, stats)
        case "mysql":
            from message.storage.build import build_mysql_store

            return build_mysql_store(config.mysql, config.message, stats)
        case _:
            from message.storage.embedded.store import EmbeddedStore

            return EmbeddedStore(config.message, stats)
