"""Settings of the registry: where ZooKeeper is, and how long a silent node counts as alive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.addresses import split_address


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """ZooKeeper, which tells who is alive. All nodes of a cluster need the same."""

    servers: tuple[str, ...] = field(
        default=("127.0.0.1:2181",), metadata={"doc": "ZooKeeper servers, host:port each."}
    )
    comet_path: str = field(
        default="/gopush-cluster-comet",
        metadata={"doc": "Where comet nodes announce themselves; different paths are different clusters."},
    )
    message_path: str = field(
        default="/gopush-cluster-message", metadata={"doc": "Where message nodes announce themselves."}
    )
    web_path: str = field(
        default="/gopush-cluster-web",
        metadata={"doc": "Where web nodes announce themselves; only the listing of nodes reads it."},
    )
    session_timeout_s: float = field(
        default=5.0,
        metadata={
            "doc": "A node that was silent for this long is dead, and its keys move. ZooKeeper rounds it up "
            "to its tickTime and keeps it between 2 and 20 ticks: 500 ms or less is recommended.",
            "min": 0.5,
            "max": 600.0,
        },
    )
    digest: str = field(
        default="",
        metadata={
            "doc": "user:password. What nodes announce is then written only by who knows it, and read by "
            "anyone. Empty: anyone may write.",
            "secret": True,
        },
    )
    connect_timeout_s: float = field(
        default=1.0,
        metadata={
            "doc": "Time for one ZooKeeper server to accept a connection, and again to give a session, "
            "before the next is tried; at most a quarter of session_timeout_s. The second is doubled for "
            "each that was too slow.",
            "min": 0.05,
        },
    )
    retry_max_s: float = field(
        default=0.5,
        metadata={
            "doc": "Longest pause between attempts to reach ZooKeeper. Far below session_timeout_s, so that "
            "sessions are resumed before they expire.",
            "min": 0.05,
        },
    )
    answer_timeout_s: float = field(
        default=5.0,
        metadata={"doc": "A request that ZooKeeper leaves unanswered for this long is repeated.", "min": 0.1},
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """See cluster/config.py."""
        yield from self._server_faults()
        yield from self._path_faults()
        user, colon, password = self.digest.partition(":")
        if self.digest and not (user and colon and password):
            yield "digest", "must be user:password"
        if self.retry_max_s > self.session_timeout_s / 2:
            yield "retry_max_s", "must be at most half of session_timeout_s"

    def _server_faults(self) -> Iterable[tuple[str, str]]:
        if not self.servers:
            yield "servers", "must not be empty"
        for server in self.servers:
            try:
                host, port = split_address(server)
            except ValueError as error:
                yield "servers", str(error)
                continue
            if not host or port == 0:
                yield "servers", f"needs a host and a port, got {server!r}"

    def _path_faults(self) -> Iterable[tuple[str, str]]:
        taken: list[str] = []
        for key in ("comet_path", "message_path", "web_path"):
            path = getattr(self, key)
            if not path.startswith("/") or not all(_is_name(part) for part in path[1:].split("/")):
                yield key, f"must be a path like /name or /name/name, got {path!r}"
            elif any(
                f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/") for other in taken
            ):
                yield key, "must not lie in another node kind's path"
            taken.append(path)


def _is_name(part: str) -> bool:
    """Whether ZooKeeper and people take it as a name in a path."""
    return part.isprintable() and part not in ("", ".", "..", "zookeeper")
