"""Settings of the MySQL store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from message.storage.servers import MYSQL_SCHEMES, server_faults


@dataclass(frozen=True, slots=True)
class MysqlSettings:
    """The MySQL store: one MySQL or MariaDB server, or several that share the keys by a ring."""

    servers: tuple[str, ...] = field(
        default=("mysql://encke@127.0.0.1:3306/encke",),
        metadata={
            "doc": "Servers: mysql://USER[:PASSWORD]@HOST:PORT/DATABASE, mysqls:// with TLS; with the "
            "options unix_socket, ssl_ca and weight: a server of ?weight=N holds N times as many keys. Every "
            "message node must list the same servers with the same weights.",
            "secret": True,
        },
    )
    connect_timeout_s: float = field(
        default=2.0,
        metadata={"doc": "Time to connect.", "min": 0.05, "max": 60.0},
    )
    timeout_s: float = field(
        default=2.5,
        metadata={
            "doc": "A server that has not answered a statement for this long is given up: its transaction "
            "is not done, or in doubt if it was being committed.",
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
    writer_threads: int = field(
        default=2,
        metadata={
            "doc": "Connections of each server that save. A key always takes the same one.",
            "min": 1,
            "max": 64,
        },
    )
    reader_threads: int = field(
        default=2,
        metadata={"doc": "Connections of each server that read.", "min": 1, "max": 64},
    )
    max_group_saves: int = field(
        default=256,
        metadata={
            "doc": "Saves that share one transaction. Bounds how long the first of them waits for the last.",
            "min": 1,
            "max": 10_000,
        },
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """What is wrong between the values."""
        for fault in server_faults(self.servers, MYSQL_SCHEMES):
            yield "servers", fault
