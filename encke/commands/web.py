"""`encke web`: a node that answers the HTTP APIs."""

from __future__ import annotations

import argparse

from encke.commands.running import Listener, add_node_flags, load_node_config, run_node

LISTENERS = (
    Listener("public", "web", "public_bind", "the public HTTP API", is_public=True),
    Listener("admin", "web", "admin_bind", "the admin HTTP API", is_public=False),
    Listener("status", "web", "status_bind", "health and metrics", is_public=False),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "web",
        help="run one web node of a cluster",
        description="Answer the public and the admin HTTP API; forward pushes to the comet nodes.",
    )
    add_node_flags(parser, LISTENERS)


def run(args: argparse.Namespace) -> int:
    """Run until a signal; 0 after an orderly drain."""
    from cluster.model import NodeKind

    config = load_node_config(args, NodeKind.WEB, LISTENERS)
    return run_node(config, NodeKind.WEB, LISTENERS)
