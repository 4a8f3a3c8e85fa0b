"""What the commands that run a server share: flags of addresses, the run itself, lines of output."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.config import Override
    from cluster.model import NodeKind
    from cluster.service import Application
    from cluster.stats import Stats
    from encke.config import EnckeConfig
    from encke.ports import Door


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

    def door(self, config: EnckeConfig) -> Door:
        """The same, for a look whether it is free."""
        from encke.ports import Door

        return Door(self.purpose, self.address(config), self.flag, f"{self.table}.{self.key}")


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
    """Run until a signal; 0 after an orderly drain.

    Raises:
        ConfigError: an address cannot be bound.
    """
    from cluster.errors import ConfigError
    from encke.ports import door_faults

    faults = door_faults(listener.door(config) for listener in listeners)
    if faults:
        raise ConfigError(faults)
    return run_process(config, build)


def run_process(config: EnckeConfig, build: Callable[[Stats], Application], *, worker: str = "") -> int:
    """The same without a look at the addresses before.

    Args:
        worker: its name, when another process of ours has started this one, and ends it.
    """
    from cluster import log, service
    from cluster.errors import EnckeError
    from cluster.limits import raise_descriptor_limit
    from cluster.stats import Stats

    log.configure(config.log, process=worker)
    if not worker:
        _log_settings(config)
    stats = Stats()
    raise_descriptor_limit()
    try:
        return service.run(build(stats), config.process, stats, is_supervised=bool(worker))
    except (EnckeError, OSError) as error:
        return _complain(str(error).splitlines(), worker)


def _log_settings(config: EnckeConfig) -> None:
    from cluster.config import changed

    for line in changed(config):
        logging.getLogger(__name__).info("setting %s", line)


def _complain(faults: Sequence[str], worker: str = "") -> int:
    for fault in faults:
        print(f"encke: {worker}: {fault}" if worker else f"encke: {fault}", file=sys.stderr)
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
    from cluster.registry.zookeeper import ZooKeeperRegistry
    from encke.nodes import NodeProcess

    return run_application(
        config,
        listeners,
        lambda stats: NodeProcess(kind, config, stats, say, ZooKeeperRegistry(config.registry)),
    )


def say(line: str) -> None:
    """Write a line of output. Flushed: whoever waits for "ready" reads a pipe."""
    print(line, flush=True)
