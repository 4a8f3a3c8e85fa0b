"""`encke ready`: whether a node of this machine can serve. For health checks, and to wait for a start."""

from __future__ import annotations

import argparse
import http.client
import time

from encke.commands.arguments import seconds
from encke.listeners import LISTENERS, status_listener

# For an answer; a node answers its probes within a turn of its loop.
TIMEOUT_S = 2.0
# Of an answer, as far as it is read: its first lines.
ANSWER_BYTES = 1000
# Pause between questions to one that is not ready yet.
RETRY_S = 0.1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "ready",
        help="tell whether a node on this machine can serve",
        description="Ask a node's status address, as configured. Exit code 0: it can serve; 1: not, and why.",
    )
    parser.add_argument("kind", choices=LISTENERS, help="the command that runs it")
    parser.add_argument("--config", metavar="FILE", help="its configuration file")
    parser.add_argument("--status-bind", metavar="HOST:PORT", help="its status address, as it was told")
    parser.add_argument(
        "--within",
        metavar="SECONDS",
        type=seconds(0.0),
        default=0.0,
        help="wait this long for it to be ready",
    )


def run(args: argparse.Namespace) -> int:
    """Ask until it is ready or the time is over.

    Raises:
        UnavailableError: it was not, with its own word on why.
    """
    from cluster.addresses import join_address
    from cluster.errors import UnavailableError

    host, port = _address(args)
    end = time.monotonic() + args.within
    while fault := _fault(host, port, args.kind):
        if time.monotonic() >= end:
            raise UnavailableError(f"{args.kind} at {join_address(host, port)} is not ready: {fault}")
        time.sleep(RETRY_S)
    print("ready")
    return 0


def _address(args: argparse.Namespace) -> tuple[str, int]:
    from cluster.addresses import is_unspecified, split_address
    from cluster.config import Override
    from cluster.errors import ConfigError
    from encke.config import load_config

    flag = args.status_bind
    status = status_listener(args.kind)
    overrides = [] if flag is None else [Override(status.flag, status.table, status.key, flag)]
    # Whether the rest of the file makes sense is the node's business.
    address = status.address(load_config(args.config, overrides, used=()))
    if not address:
        raise ConfigError(
            [
                f"{args.kind}.status_bind: the status port is switched off,"
                " so nobody can ask whether it is ready"
            ]
        )
    host, port = split_address(address)
    if not port:
        raise ConfigError([f"{args.kind}.status_bind: port 0 means any: say which with --status-bind"])
    if not host or is_unspecified(host):
        # Bound to all addresses of the machine, "::" to those of IPv4 as well.
        host = "127.0.0.1"
    return host, port


def _fault(host: str, port: int, kind: str) -> str | None:
    """Why it cannot serve; None = it can."""
    from encke.announcing import is_another

    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        lines = answer.read(ANSWER_BYTES).decode("utf-8", "replace").splitlines()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    # The lines below the first tell who answers, and of the store.
    if other := next((line for line in lines[1:] if is_another(line, kind)), ""):
        return f"{other} answers there"
    return None if answer.status == 200 else "".join(lines[:1]) or f"status {answer.status}"
