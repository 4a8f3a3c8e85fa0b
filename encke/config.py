"""The configuration file as a whole: which table is whose."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from cluster.addresses import is_unspecified, split_address
from cluster.config import Override, load
from cluster.log import LogConfig
from cluster.registry.config import RegistrySettings
from cluster.rpc.config import RpcConfig
from cluster.service import ProcessConfig
from comet.config import CometConfig
from message.config import MessageConfig
from message.storage.mysql.config import MysqlSettings
from message.storage.redis.config import RedisSettings
from web.config import WebConfig


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`encke serve`: all nodes in one process."""

    advertise_host: str = field(
        default="",
        metadata={
            "doc": "Host name or address that subscribers are told to connect to, with the ports that are "
            "bound. Empty: the host at which they asked. comet.ws_advertise and comet.tcp_advertise win."
        },
    )
    status_bind: str = field(
        default="127.0.0.1:6972",
        metadata={
            "doc": "Where /healthz, /readyz and /metrics are answered. Nothing secret, but not for "
            "everybody.",
            "may_be_off": True,
        },
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """Refuse to send subscribers where nobody can connect to."""
        if is_unspecified(self.advertise_host):
            yield "advertise_host", f"must be a host that others can connect to, got {self.advertise_host!r}"


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Subscriber tokens (docs/subscriber-protocol.md)."""

    secrets: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Secrets of subscriber tokens. Empty: anybody may subscribe to any key. The first one "
            "mints, tokens of the others are still good: put a new one in front to change it.",
            "secret": True,
        },
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """Refuse what only looks like protection."""
        if not all(self.secrets):
            yield "secrets", "must not be empty"


@dataclass(frozen=True, slots=True)
class EnckeConfig:
    """Configuration of Encke.

    Every key is here with its default; leave out what you do not change. The
    environment wins over this file (ENCKE_COMET__WS_BIND=127.0.0.1:6968), and
    flags of the command win over both. `encke config check FILE` finds all
    faults at once.

    An address to listen on is "host:port", port 0 = any. "[::]:8090" is all
    interfaces, IPv6 and IPv4; "0.0.0.0:8090" is IPv4 alone. An empty one
    switches the listener off, where that is possible.
    """

    serve: ServeConfig
    comet: CometConfig
    message: MessageConfig
    web: WebConfig
    auth: AuthConfig
    registry: RegistrySettings
    rpc: RpcConfig
    redis: RedisSettings
    mysql: MysqlSettings
    process: ProcessConfig
    log: LogConfig


def load_config(
    path: str | None, overrides: Iterable[Override] = (), *, used: Container[str] | None = None
) -> EnckeConfig:
    """Read file, environment and flags.

    Args:
        used: the tables that the caller uses; None = all. Of the others only what cannot be read is a fault.

    Raises:
        ConfigError: with every fault.
    """
    unused = [one.name for one in fields(EnckeConfig) if used is not None and one.name not in used]
    return load(EnckeConfig, None if path is None else Path(path), os.environ, overrides, unused=unused)


def call_faults(config: EnckeConfig, used: Container[str] = ("comet", "message")) -> list[str]:
    """Why other nodes could not call one with these tables; `encke serve` is called by nobody."""
    faults = []
    for kind in ("comet", "message"):
        node: CometConfig | MessageConfig = getattr(config, kind)
        host, _ = split_address(node.rpc_bind)
        if kind in used and not node.rpc_advertise and (not host or is_unspecified(host)):
            faults.append(
                f"{kind}.rpc_advertise: set the host:port at which other nodes call this one;"
                f" {kind}.rpc_bind ({node.rpc_bind}) names no host that they could connect to"
            )
    return faults
