"""Runs a cluster for a measurement: ZooKeeper, Redis and a process for each node."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import usage
from bench.server import Server
from cluster.model import Key, NodeName
from cluster.ring import Ring
from tests.support.servers import RedisServer
from tests.support.zookeeper import ZooKeeper

# Of the registry. ZooKeeper sees the end of a session a tick later at most.
SESSION_S = 2.0
TICK_MS = 500
# What the registry holds is on ZooKeeper's disk before it answers, as it is in earnest.
DURABLE = "-Dzookeeper.forceSync=yes"


class Cluster:
    """One web node, one message node on Redis, and some comet nodes; ends with the `with` block."""

    def __init__(self, comets: int, appendfsync: str = "always") -> None:
        """Prepare it.

        Args:
            comets: how many comet nodes.
            appendfsync: when Redis writes to its disk: "always", "everysec" or "no".
        """
        self._stack = contextlib.ExitStack()
        self._appendfsync = appendfsync
        self._comets = [f"comet-{number}" for number in range(1, comets + 1)]
        # By name, in the order in which a push comes by.
        self.nodes: dict[str, Server] = {}

    @property
    def web(self) -> Server:
        return self.nodes["web"]

    @property
    def comets(self) -> dict[str, Server]:
        """By name."""
        return {name: self.nodes[name] for name in self._comets}

    def owner(self, key: str) -> str:
        """Name of the comet node that the ring gives a key."""
        return self._ring.owner(Key(key))

    def pids(self) -> dict[str, int]:
        """Of our processes and of Redis, by name."""
        return {**{name: node.pid for name, node in self.nodes.items()}, "Redis": self._redis.pid}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each process has used so far, by name, once all are quiet."""
        return usage.all_quiet_cpu_s(self.pids())

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="encke-bench-")))
        zookeeper = self._stack.enter_context(ZooKeeper(directory / "zookeeper", DURABLE, tick_ms=TICK_MS))
        self._redis = self._stack.enter_context(
            RedisServer(directory / "redis", "--appendfsync", self._appendfsync)
        )
        settings = {
            "ENCKE_REGISTRY__SERVERS": zookeeper.address,
            "ENCKE_REGISTRY__SESSION_TIMEOUT_S": str(SESSION_S),
            "ENCKE_MESSAGE__STORE": "redis",
            "ENCKE_REDIS__SERVERS": self._redis.url,
        }
        # In the order in which they need each other; they stop in the reverse one.
        message = self._stack.enter_context(Server(settings, "message"))
        comets = {
            name: self._stack.enter_context(Server(settings, "comet", "--name", name))
            for name in self._comets
        }
        web = self._stack.enter_context(Server(settings, "web"))
        self.nodes = {"web": web, **comets, "message": message}
        self._ring = Ring({NodeName(name): 1 for name in self._comets})
