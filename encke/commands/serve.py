"""`encke serve`: all nodes in one process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.config import Override
    from encke.config import EnckeConfig
    from encke.ports import Door


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener that a flag can move."""

    kind: str
    table: str
    key: str
    purpose: str
    # Whether --host moves it: what the outside world talks to.
    is_public: bool

    @property
    def flag(self) -> str:
        """The flag of its address."""
        return f"--{self.kind}-bind"


LISTENERS = (
    Listener("ws", "comet", "ws_bind", "WebSocket subscribers", is_public=True),
    Listener("tcp", "comet", "tcp_bind", "TCP subscribers", is_public=True),
    Listener("public", "web", "public_bind", "the public HTTP API", is_public=True),
    Listener("admin", "web", "admin_bind", "the admin HTTP API", is_public=False),
    Listener("status", "serve", "status_bind", "health and metrics", is_public=False),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "serve",
        help="run the whole server in one process",
        description="Run the whole server in one process. Needs no arguments; stores under ./encke-data.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file; `encke config example` prints one")
    parser.add_argument("--data-dir", metavar="DIR", help="where messages are stored (./encke-data)")
    parser.add_argument(
        "--host", metavar="HOST", help="listen for subscribers and the public API on this address only"
    )
    parser.add_argument(
        "--advertise",
        metavar="HOST",
        help="host that subscribers are told to connect to (the one they asked)",
    )
    for listener in LISTENERS:
        parser.add_argument(
            listener.flag, metavar="HOST:PORT", help=f"listen here for {listener.purpose}; port 0 = any"
        )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; 0 after an orderly drain."""
    import sys

    from cluster import log, service
    from cluster.errors import EnckeError
    from cluster.limits import raise_descriptor_limit
    from cluster.stats import Stats
    from encke.config import load_config
    from encke.ports import door_faults
    from encke.standalone import Standalone

    config = load_config(args.config, _overrides(args))
    log.configure(config.log)
    faults = door_faults(_doors(config))
    if not faults:
        stats = Stats()
        raise_descriptor_limit()
        try:
            return service.run(Standalone(config, stats, _say), config.process, stats)
        except (EnckeError, OSError) as error:
            faults = str(error).splitlines()
    for fault in faults:
        print(f"encke: {fault}", file=sys.stderr)
    return 1


def _overrides(args: argparse.Namespace) -> list[Override]:
    from cluster.config import Override

    overrides = []
    if args.data_dir is not None:
        overrides.append(Override("--data-dir", "message", "data_dir", args.data_dir))
    if args.advertise is not None:
        overrides.append(Override("--advertise", "serve", "advertise_host", args.advertise))
    if args.host is not None:
        overrides += _host_overrides(args)
    for listener in LISTENERS:
        address = getattr(args, f"{listener.kind}_bind")
        if address is not None:
            overrides.append(Override(listener.flag, listener.table, listener.key, address))
    return overrides


def _host_overrides(args: argparse.Namespace) -> list[Override]:
    """--host changes the host of what is configured, and leaves the ports."""
    from cluster.config import Override
    from cluster.settings import join_address, split_address
    from encke.config import load_config

    config = load_config(args.config)
    overrides = []
    for listener in LISTENERS:
        if listener.is_public:
            port = split_address(_address(config, listener))[1]
            address = join_address(args.host.strip("[]"), port)
            overrides.append(Override("--host", listener.table, listener.key, address))
    return overrides


def _doors(config: EnckeConfig) -> list[Door]:
    from encke.ports import Door

    return [
        Door(
            purpose=listener.purpose,
            address=_address(config, listener),
            flag=listener.flag,
            setting=f"{listener.table}.{listener.key}",
        )
        for listener in LISTENERS
    ]


def _address(config: EnckeConfig, listener: Listener) -> str:
    address = getattr(getattr(config, listener.table), listener.key)
    assert isinstance(address, str)
    return address


def _say(line: str) -> None:
    # Flushed: whoever waits for "ready" reads a pipe.
    print(line, flush=True)
