"""`encke web`: a node that answers the HTTP APIs."""

from __future__ import annotations

import argparse

from encke.commands.running import add_node_flags, load_node_config, run_node


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "web",
        help="run one web node of a cluster",
        description="Answer the public and the admin HTTP API; forward pushes to the comet nodes.",
    )
    add_node_flags(parser, "web")


def run(args: argparse.Namespace) -> int:
    """Run until a signal; 0 after an orderly drain."""
    return run_node(load_node_config(args, "web"), "web")
