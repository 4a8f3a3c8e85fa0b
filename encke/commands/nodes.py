"""`encke nodes`: who is in the cluster, asked of the admin port."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8091"
TIMEOUT_S = 10.0

# Widest columns are cut first, never below this.
NARROWEST = 6


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser("nodes", help="list the nodes", description="List the nodes of a cluster.")
    parser.add_argument("--url", default=DEFAULT_URL, help=f"admin address of a web node ({DEFAULT_URL})")
    parser.add_argument(
        "--admin-token",
        metavar="TOKEN",
        default=os.environ.get("ENCKE_ADMIN_TOKEN", ""),
        help="where the admin port asks for one ($ENCKE_ADMIN_TOKEN)",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as it is")


def run(args: argparse.Namespace) -> int:
    """Ask, and print a table that fits the terminal."""
    import json
    import urllib.error
    import urllib.request

    url = args.url if "://" in args.url else f"http://{args.url}"
    request = urllib.request.Request(url.rstrip("/") + "/2/admin/nodes")
    if args.admin_token:
        request.add_header("Authorization", f"Bearer {args.admin_token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return _complain(f"{args.url} answered {error.code}: {_reason(error.read())}")
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return _complain(f"no answer from {args.url} ({reason}): is the server running? give --url URL")
    if args.json:
        print(text)
        return 0
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 0
    for line in table(
        ["KIND", "NAME", "STATE", "SHARE", "CONNS", "KEYS", "UP", "ADDRESSES"], _rows(json.loads(text)), width
    ):
        print(line)
    return 0


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out columns.

    Args:
        width: of the terminal; 0 = as wide as needed.
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    while width and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return [
        "  ".join(_cell(text, w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]


def uptime(seconds: float) -> str:
    """Tell a time in its largest two units: "3d 4h"."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])


def _rows(answer: dict[str, Any]) -> list[list[str]]:
    return [_row(node) for node in answer["nodes"]]


def _row(node: dict[str, Any]) -> list[str]:
    addresses = node.get("addresses") or {}
    share = node.get("share")
    return [
        str(node.get("kind", "")),
        str(node.get("name", "")),
        str(node.get("state", "")),
        "" if share is None else f"{share:.0%}",
        _count(node.get("connections")),
        _count(node.get("channels")),
        uptime(node.get("uptime_s") or 0.0),
        " ".join(f"{purpose}={','.join(where)}" for purpose, where in addresses.items()),
    ]


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _reason(body: bytes) -> str:
    import json

    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace").strip()


def _complain(text: str) -> int:
    print(f"encke: {text}", file=sys.stderr)
    return 1
