"""Settings of the Redis store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from message.storage.servers import REDIS_SCHEMES, server_faults


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """The Redis store: one server, or several that share the keys by a ring."""

    servers: tuple[str, ...] = field(
        default=("redis://127.0.0.1:6379/0",),
        metadata={
            "doc": "Independent servers (not a Redis Cluster): redis://[[USER]:PASSWORD@]HOST:PORT/DB, "
            "rediss:// with TLS, unix://[[USER]:PASSWORD@]/PATH?db=N. With ?weight=N a server holds N times "
            "as many keys. Every message node must list the same servers with the same weights.",
            "secret": True,
        },
    )
    connect_timeout_s: float = field(
        default=1.0,
        metadata={"doc": "Time to connect and log in.", "min": 0.05, "max": 60.0},
    )
    timeout_s: float = field(
        default=2.5,
        metadata={
            "doc": "A server that has not answered for this long is given up: what was sent to it is in "
            "doubt, and a new connection is tried.",
            "min": 0.05,
            "max": 60.0,
        },
    )
    retry_s: float = field(
        default=0.2,
        metadata={
            "doc": "Pause between attempts to connect to a server that is away.",
            "min": 0.01,
            "max": 60.0,
        },
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """What is wrong between the values."""
        for fault in server_faults(self.servers, REDIS_SCHEMES):
            yield "servers", fault
