"""A real cluster: ZooKeeper, Redis or MariaDB, and node processes on free loopback ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cluster.model import NodeName
from cluster.ring import Ring
from tests.support.eventually import DEADLINE_S, eventually_told
from tests.support.history import Close, Sub
from tests.support.load import Load, Reader
from tests.support.peer import Address
from tests.support.servers import RedisServer
from tests.support.subscriber import HEARTBEAT_LINE, Line, subscribe_tcp, subscribe_websocket
from tests.support.system import Server
from tests.support.zookeeper import ZooKeeper

SESSION_S = 1.0
# Subscribers of a run say nothing, and are to stay.
HEARTBEAT_S = 600

_REGISTRY = """
[registry]
servers = ["{zookeeper}"]
session_timeout_s = {session_s}
retry_max_s = 0.2
comet_path = "/{root}/comet"
message_path = "/{root}/message"
web_path = "/{root}/web"
"""

_CONFIG = """
[rpc]
secret = "between us"

[message]
store = "{store}"

[{store}]
servers = [{servers}]

[comet]
close_pace_per_s = 200

[process]
drain_s = 4.0
"""


class Cluster:
    """Nodes by name. Not started by the constructor."""

    def __init__(self, directory: Path, zookeeper: ZooKeeper, *redis: RedisServer, mysql: str = "") -> None:
        """Describe a cluster without nodes; its servers run already.

        Args:
            redis: they share the keys.
            mysql: URL of a database that is the store instead.
        """
        self._directory = directory
        self.zookeeper = zookeeper
        servers = [mysql] if mysql else [server.url for server in redis]
        self._config = _CONFIG.format(
            store="mysql" if mysql else "redis", servers=", ".join(f'"{url}"' for url in servers)
        )
        # Web nodes that backends are not sent to, though they may run: see webs().
        self.resting: set[str] = set()
        # By how the tests know them; two processes may announce one name.
        self.nodes: dict[str, Server] = {}

    def node(
        self,
        kind: str,
        name: str,
        *,
        process: str = "",
        zookeeper: str = "",
        session_s: float = SESSION_S,
        more: str = "",
        environ: Mapping[str, str] | None = None,
        flags: tuple[str, ...] = (),
        off: tuple[str, ...] = (),
    ) -> Server:
        """Describe a node; a caller starts it.

        Args:
            name: what it announces.
            process: how the test knows it, where it is not the only one of its name.
            zookeeper: host:port at which it finds ZooKeeper, if it is not ZooKeeper's own.
            more: tables for its configuration file.
            environ: variables on top of this process's.
            flags: more words of its command line.
            off: the listeners that it is to do without.
        """
        registry = _REGISTRY.format(
            zookeeper=zookeeper or self.zookeeper.address, session_s=session_s, root=self.root
        )
        directory = self._directory / (process or name)
        server = Server(
            directory,
            command=kind,
            config=registry + self._config + more,
            flags=("--name", name, *flags),
            environ=environ,
            off=off,
        )
        self.nodes[process or name] = server
        return server

    @property
    def root(self) -> str:
        """Where in ZooKeeper this cluster is: killed nodes of others are still registered for a while."""
        return self._directory.name

    def comet_entries(self, name: str) -> str:
        """Path below which the instances of a comet node stand in ZooKeeper."""
        return f"/{self.root}/comet/{name}"

    def start(self, *nodes: tuple[str, str], others: Iterable[Server] = ()) -> None:
        """Start nodes (kind, name), and others that are described, all at once: they wait for each other.

        Web nodes come last: they know all the others then, and where each key is.
        """
        described = [*others, *(self.node(kind, name) for kind, name in nodes)]
        webs = [node for node in described if node.command == "web"]
        for together in ([node for node in described if node not in webs], webs):
            if together:
                with ThreadPoolExecutor(len(together)) as threads:
                    list(threads.map(Server.start, together))

    @property
    def web(self) -> Server:
        """The first web node."""
        return self.nodes["web-1"]

    def webs(self) -> list[tuple[str, Server]]:
        """Name and process of every web node that a load balancer sends backends to."""
        return [
            (name, server)
            for name, server in self.nodes.items()
            if name.startswith("web-") and name not in self.resting
        ]

    def kill(self) -> None:
        """Kill every node that runs."""
        for server in self.nodes.values():
            server.kill()

    def comet_of(self, address: Address) -> str | None:
        """The comet node that listens there; None while it is starting and has not said so here."""
        for name, server in self.nodes.items():
            if address in map(server.addresses.get, ("ws", "tcp")):
                return name
        return None

    def tcp_of(self, name: str) -> Address:
        """Where a comet node listens for TCP."""
        return self.nodes[name].addresses["tcp"]

    async def locate(self, key: str, transport: str = "tcp") -> Address | None:
        """Where the web node sends a subscriber of a key; None when nobody serves it."""
        proto = "1" if transport == "ws" else "2"
        _, web = self.webs()[0]
        response = await web.ask("public", "GET", f"/1/server/get?k={quote(key, safe='')}&p={proto}")
        if response.json["ret"] != 0:
            return None
        host, _, port = response.json["data"]["server"].rpartition(":")
        return host, int(port)

    async def owner(self, key: str) -> str | None:
        """Name of the node that the web node takes for the owner of a key."""
        address = await self.locate(key)
        return None if address is None else self.comet_of(address)

    async def wait_owner(self, key: str, name: str) -> None:
        """Until the web node names this node as the owner of a key, and the node knows it, too."""

        async def is_owner() -> bool:
            return await self.owner(key) == name and await self._takes(name, key)

        await eventually_told(is_owner, DEADLINE_S)

    async def _takes(self, name: str, key: str) -> bool:
        """Whether a node takes subscribers of a key."""
        subscriber = await subscribe_tcp(self.tcp_of(name), key)
        try:
            return await subscriber.receive() == Line(HEARTBEAT_LINE)
        finally:
            await subscriber.close()

    def log(self) -> str:
        """The end of what every node has logged, but for its settings."""
        return "\n".join(f"--- {name}\n{_end_of(server.log)}" for name, server in self.nodes.items())


def _end_of(log: str) -> str:
    return "\n".join([line for line in log.splitlines() if "setting " not in line][-15:])


def owned_by(names: tuple[str, ...], name: str, count: int, prefix: str = "k") -> list[str]:
    """Keys that a ring of these names (weight 1) gives to one of them."""
    ring = Ring({NodeName(one): 1 for one in names})
    keys: list[str] = []
    number = 0
    while len(keys) < count:
        number += 1
        if ring.owner(f"{prefix}{number}") == name:  # type: ignore[arg-type]
            keys.append(f"{prefix}{number}")
    return keys


class Wanderer(Reader):
    """A reader that asks for its server before each connection."""

    def __init__(self, cluster: Cluster, load: Load, key: str, transport: str) -> None:
        super().__init__(load, key, transport, f"{key}-{transport}")
        self._cluster = cluster
        # Names of the nodes that it was connected to, in order.
        self.visited: list[str] = []

    async def session(self, until: Callable[[], bool] = lambda: False) -> None:
        """One connection to the node that owns the key now, until it ends."""
        load = self._load
        address = await self._cluster.locate(self.key, self._transport)
        node = None if address is None else self._cluster.comet_of(address)
        if address is None or node is None:
            await asyncio.sleep(0.05)
            return
        subscribe: Any = subscribe_tcp if self._transport == "tcp" else subscribe_websocket
        name = f"{self.name}.{next(self._numbers)}"
        load.note(Sub(load.history.now(), name, self.key, self.last_mid))
        subscriber = await subscribe(
            address, self.key, version="2", mid=self.last_mid, heartbeat_s=HEARTBEAT_S
        )
        try:
            first = await subscriber.receive(within=60.0)
            if first != Line(HEARTBEAT_LINE):
                # Not the owner (any more), or it is leaving.
                await asyncio.sleep(0.05)
                return
            self.visited.append(node)
            await self._read(name, subscriber, until, is_open=True)
        finally:
            load.note(Close(load.history.now(), name, self.ends[-1].code if self.ends else 0))
            await subscriber.close()


@contextlib.contextmanager
def running_cluster(
    directory: Path, zookeeper: ZooKeeper, *redis: RedisServer, mysql: str = ""
) -> Iterator[Cluster]:
    """A cluster without nodes; kills what was started in it."""
    cluster = Cluster(directory, zookeeper, *redis, mysql=mysql)
    try:
        yield cluster
    finally:
        cluster.kill()
