"""`encke serve`: all nodes in one process, or in several on one machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

from encke.commands.running import add_bind_flags, bind_overrides, run_application, say
from encke.commands.supervising import add_workers_flag, run_workers
from encke.listeners import LISTENERS, OUTSIDE, switched_on

if TYPE_CHECKING:
    from cluster.config import Override


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
        "--host",
        metavar="HOST",
        help="listen for subscribers and the public API on this address only (::, IPv6 and IPv4)",
    )
    parser.add_argument(
        "--advertise",
        metavar="HOST",
        help="host that subscribers are told to connect to (the one they asked)",
    )
    add_bind_flags(parser, "serve")
    add_workers_flag(
        parser,
        "serve subscribers with N processes, which share the keys, and the rest with two more; processes that"
        " die are started again. Subscribers of process i are served on the ports + 10 i",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; 0 after an orderly drain."""
    from encke.config import load_config
    from encke.invocation import Invocation
    from encke.standalone import Standalone
    from encke.workerplan import serve_plans

    config = load_config(args.config, _overrides(args))
    invocation = Invocation(_program(), args.config or "")
    if args.workers is not None:
        return run_workers(config, "serve", serve_plans(config, args.workers), invocation)
    return run_application(config, "serve", lambda stats: Standalone(config, stats, say, invocation))


def _program() -> str:
    """What to type for this command: its path when it is in a directory that the shell does not search."""
    called = sys.argv[0]
    return called if os.path.basename(called) == "encke" and not shutil.which("encke") else "encke"


def _overrides(args: argparse.Namespace) -> list[Override]:
    from cluster.config import Override

    overrides = []
    if args.data_dir is not None:
        overrides.append(Override("--data-dir", "message", "data_dir", args.data_dir))
    if args.advertise is not None:
        overrides.append(Override("--advertise", "serve", "advertise_host", args.advertise))
    if args.host is not None:
        overrides += _host_overrides(args)
    return overrides + bind_overrides(args, "serve")


def _host_overrides(args: argparse.Namespace) -> list[Override]:
    """--host changes the host of what is configured, and leaves the ports and what is switched off."""
    from cluster.addresses import join_address, split_address
    from cluster.config import Override
    from encke.config import load_config

    # What does not fit together is told of when all flags are known.
    config = load_config(args.config, used=())
    overrides = []
    for listener in switched_on(LISTENERS["serve"], config):
        if listener.purpose in OUTSIDE:
            port = split_address(listener.address(config))[1]
            address = join_address(args.host.strip("[]"), port)
            overrides.append(Override("--host", listener.table, listener.key, address))
    return overrides
