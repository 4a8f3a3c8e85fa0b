"""`encke comet`: a node that holds subscribers' connections."""

from __future__ import annotations

import argparse

from encke.commands.running import Listener, add_node_flags, load_node_config, run_node

LISTENERS = (
    Listener("ws", "comet", "ws_bind", "WebSocket subscribers", is_public=True),
    Listener("tcp", "comet", "tcp_bind", "TCP subscribers", is_public=True),
    Listener("rpc", "comet", "rpc_bind", "calls of web nodes", is_public=False),
    Listener("status", "comet", "status_bind", "health and metrics", is_public=False),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "comet",
        help="run one comet node of a cluster",
        description="Hold subscribers' connections, as one of the nodes that share the keys.",
    )
    add_node_flags(parser, LISTENERS)


def run(args: argparse.Namespace) -> int:
    """Run until a signal; 0 after an orderly drain."""
    from cluster.model import NodeKind

    config = load_node_config(args, NodeKind.COMET, LISTENERS)
    return run_node(config, NodeKind.COMET, LISTENERS)
