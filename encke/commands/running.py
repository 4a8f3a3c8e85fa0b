"""What the commands that run a server share: flags of addresses, the run itself, lines of output."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.config import Override
    from cluster.model import NodeKind
    from cluster.service import Application
    from cluster.stats import Stats
    from encke.config import EnckeConfig


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener that a flag can move."""

    kind: str
    table: str
    key: str
    purpose: str
    # Whether --host of `encke serve` moves it: what the outside world talks to.
    is_public: bool

    @property
    def flag(self) -> str:
        """The flag of its address."""
        return f"--{self.kind}-bind"

    def address(self, config: EnckeConfig) -> str:
        """As configured."""
        address = getattr(getattr(config, self.table), self.key)
        assert isinstance(address, str)
        return address


def add_bind_flags(parser: argparse.ArgumentParser, listeners: Sequence[Listener]) -> None:
    """A flag for each address."""
    for listener in listeners:
        parser.add_argument(
            listener.flag, metavar="HOST:PORT", help=f"listen here for {listener.purpose}; port 0 = any"
        )


def bind_overrides(args: argparse.Namespace, listeners: Sequence[Listener]) -> list[Override]:
    """What those flags change."""
    from cluster.config import Override

    return [
        Override(listener.flag, listener.table, listener.key, address)
        for listener in listeners
        if (address := getattr(args, f"{listener.kind}_bind")) is not None
    ]


def run_application(
    config: EnckeConfig, listeners: Sequence[Listener], build: Callable[[Stats], Application]
) -> int:
    """Run until a signal; 0 after an orderly drain."""
    import sys

    from cluster import log, service
    from cluster.errors import EnckeError
    from cluster.limits import raise_descriptor_limit
    from cluster.stats import Stats
    from encke.ports import Door, door_faults

    log.configure(config.log)
    faults = door_faults(
        Door(
            purpose=listener.purpose,
            address=listener.address(config),
            flag=listener.flag,
            setting=f"{listener.table}.{listener.key}",
        )
        for listener in listeners
    )
    if not faults:
        stats = Stats()
        raise_descriptor_limit()
        try:
            return service.run(build(stats), config.process, stats)
        except (EnckeError, OSError) as error:
            faults = str(error).splitlines()
    for fault in faults:
        print(f"encke: {fault}", file=sys.stderr)
    return 1


def add_node_flags(parser: argparse.ArgumentParser, listeners: Sequence[Listener]) -> None:
    """The flags of a node of a cluster."""
    parser.add_argument("--config", metavar="FILE", help="TOML file; `encke config example` prints one")
    parser.add_argument("--name", metavar="NAME", help="name of this node")
    add_bind_flags(parser, listeners)


def load_node_config(args: argparse.Namespace, kind: NodeKind, listeners: Sequence[Listener]) -> EnckeConfig:
    """The configuration with what add_node_flags() changes.

    Raises:
        ConfigError: with every fault.
    """
    from cluster.config import Override
    from encke.config import load_config

    overrides = bind_overrides(args, listeners)
    if args.name is not None:
        overrides.append(Override("--name", kind.value, "name", args.name))
    # All kinds may share one file; what the others need (the admin token, say) is not asked for here.
    used = (kind.value, "auth", "registry", "rpc", "redis", "mysql", "process", "log")
    return load_config(args.config, overrides, used=used)


def run_node(config: EnckeConfig, kind: NodeKind, listeners: Sequence[Listener]) -> int:
    """Run one node of a cluster until a signal; 0 after an orderly drain."""
    from encke.nodes import NodeProcess

    return run_application(config, listeners, lambda stats: NodeProcess(kind, config, stats, say))


def say(line: str) -> None:
    """Write a line of output. Flushed: whoever waits for "ready" reads a pipe."""
    print(line, flush=True)
