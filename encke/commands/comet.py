"""`encke comet`: a node that holds subscribers' connections."""

from __future__ import annotations

import argparse

from encke.commands.running import add_node_flags, load_node_config, run_node
from encke.commands.supervising import add_workers_flag, run_workers


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "comet",
        help="run one comet node of a cluster",
        description="Hold subscribers' connections, as one of the nodes that share the keys.",
    )
    add_node_flags(parser, "comet")
    add_workers_flag(
        parser,
        "run N nodes, NAME-0, NAME-1, ..., each in a process of its own, and start again what dies; node i"
        " listens on the ports + 10 i (the status port is the supervisor's; + 10 (i + 1))",
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal; 0 after an orderly drain."""
    from encke.workerplan import comet_plans

    config = load_node_config(args, "comet")
    if args.workers is None:
        return run_node(config, "comet")
    return run_workers(config, "comet", comet_plans(config, args.workers))
