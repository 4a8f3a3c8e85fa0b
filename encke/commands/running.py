"""What the commands that run a server share: flags of addresses, the run itself, lines of output."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from encke.commands.arguments import tell
from encke.listeners import LISTENERS, OUTSIDE, switched_on

if TYPE_CHECKING:
    from cluster.config import Override
    from cluster.service import Application
    from cluster.stats import Stats
    from encke.config import EnckeConfig

log = logging.getLogger(__name__)


def add_bind_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """A flag for each address that a command listens on, and one to do without it."""
    for listener in LISTENERS[command]:
        either = parser.add_mutually_exclusive_group()
        either.add_argument(
            listener.flag, metavar="HOST:PORT", help=f"listen here for {listener.words}; port 0 = any"
        )
        if listener.may_be_off:
            either.add_argument(
                listener.off_flag, action="store_true", help=f"do not listen for {listener.words}"
            )


def bind_overrides(args: argparse.Namespace, command: str) -> list[Override]:
    """What those flags change."""
    from cluster.config import Override

    overrides = []
    for listener in LISTENERS[command]:
        if (address := getattr(args, listener.key)) is not None:
            overrides.append(Override(listener.flag, listener.table, listener.key, address))
        elif getattr(args, f"no_{listener.purpose}", False):
            overrides.append(Override(listener.off_flag, listener.table, listener.key, ""))
    return overrides


def run_application(config: EnckeConfig, command: str, build: Callable[[Stats], Application]) -> int:
    """Run until a signal; 0 after an orderly drain.

    Raises:
        ConfigError: an address cannot be bound, or the data directory cannot be used.
    """
    from cluster.errors import ConfigError
    from encke.datadir import directory_faults
    from encke.ports import bind_faults

    faults = bind_faults(listener.bind(config) for listener in switched_on(LISTENERS[command], config))
    faults += directory_faults(config, command)
    if faults:
        raise ConfigError(faults)
    return run_process(config, build, command=command)


def run_process(
    config: EnckeConfig, build: Callable[[Stats], Application], *, command: str = "", worker: str = ""
) -> int:
    """The same without a look at the addresses and the directory before.

    Args:
        command: what its operator has typed; empty for a worker, of whose settings another process tells.
        worker: its name, when another process of ours has started this one, and ends it.
    """
    from cluster import log, service
    from cluster.errors import EnckeError
    from cluster.limits import raise_descriptor_limit
    from cluster.stats import Stats

    log.configure(config.log, process=worker)
    if not worker:
        _log_settings(config, command)
    stats = Stats()
    raise_descriptor_limit()
    try:
        return service.run(build(stats), config.process, stats, is_supervised=bool(worker))
    except (EnckeError, OSError) as error:
        tell(*(f"{worker}: {line}" if worker else line for line in str(error).splitlines()))
        return 1


def _log_settings(config: EnckeConfig, command: str) -> None:
    from cluster.config import changed

    for line in changed(config):
        log.info("setting %s", line)
    if addresses := open_addresses(config, command):
        log.warning(
            "whoever reaches %s and knows a key receives its messages without a token: set auth.secrets",
            ", ".join(addresses),
        )


def open_addresses(config: EnckeConfig, command: str) -> list[str]:
    """Where others than this machine are asked for no token."""
    from cluster.addresses import is_loopback, split_address

    if config.auth.secrets:
        return []
    listeners = switched_on(LISTENERS[command], config)
    addresses = [one.address(config) for one in listeners if one.purpose in OUTSIDE]
    return [address for address in addresses if not is_loopback(split_address(address)[0])]


def add_node_flags(parser: argparse.ArgumentParser, kind: str) -> None:
    """The flags of a node of a cluster, of the kind and command with this name."""
    parser.add_argument("--config", metavar="FILE", help="TOML file; `encke config example` prints one")
    parser.add_argument("--name", metavar="NAME", help="name of this node")
    add_bind_flags(parser, kind)


def load_node_config(args: argparse.Namespace, kind: str) -> EnckeConfig:
    """The configuration with what add_node_flags() changes.

    Raises:
        ConfigError: with every fault.
    """
    from cluster.config import Override
    from cluster.errors import ConfigError
    from encke.config import call_faults, load_config

    overrides = bind_overrides(args, kind)
    if args.name is not None:
        overrides.append(Override("--name", kind, "name", args.name))
    # All kinds may share one file; what the others need (the admin token, say) is not asked for here.
    used = (kind, "auth", "registry", "rpc", "redis", "mysql", "process", "log")
    config = load_config(args.config, overrides, used=used)
    if faults := call_faults(config, used):
        raise ConfigError(faults)
    return config


def run_node(config: EnckeConfig, kind: str) -> int:
    """Run one node of a cluster until a signal; 0 after an orderly drain."""
    from cluster.model import NodeKind
    from cluster.registry.zookeeper import ZooKeeperRegistry
    from encke.nodes import NodeProcess

    return run_application(
        config,
        kind,
        lambda stats: NodeProcess(NodeKind(kind), config, stats, say, ZooKeeperRegistry(config.registry)),
    )


def say(line: str) -> None:
    """Write a line of output. Flushed: whoever waits for "ready" reads a pipe.

    A server whose lines cannot be written, to a full disk, say, serves all the same.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        logging.getLogger(__name__).warning("standard output is not written any more: %s", error)
        # With what waits in the buffer, which would fail again at each line and at the end.
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
