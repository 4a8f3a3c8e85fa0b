"""`encke nodes`: who is in the cluster, asked of the admin port."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from cluster.errors import EnckeError
from encke.commands.arguments import add_admin_flags, base_url, seconds, tell
from encke.commands.nodestable import lines_of

TIMEOUT_S = 10.0
DEFAULT_WATCH_S = 2.0
MIN_WATCH_S = 0.1

# Of a terminal: to the first line; clear to the end of the line; clear to the end of the screen.
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR_ALL = "\x1b[2J"


class _NoAnswerError(EnckeError):
    """The admin port did not answer, or not with a list."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "nodes",
        help="list the nodes",
        description="List the nodes of a cluster, also those that have just gone. On a terminal the table"
        " fits its width; in a pipe each node has one line, unless $COLUMNS is set.",
    )
    add_admin_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the answer as it is; with --watch one a line"
    )
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=seconds(MIN_WATCH_S),
        const=DEFAULT_WATCH_S,
        help=f"show it again and again ({DEFAULT_WATCH_S:g} s), in place on a terminal; Ctrl-C ends it",
    )


def run(args: argparse.Namespace) -> int:
    """Ask, and print a table that fits the terminal; again and again when it is watched."""
    if args.watch is not None:
        _watch(args)
    text = _ask(args)
    print(text if args.json else "\n".join(_lines(text)))
    return 0


def _watch(args: argparse.Namespace) -> None:
    """Until somebody interrupts it. A web node that is away is told, and asked again."""
    is_screen = sys.stdout.isatty() and not args.json
    if is_screen:
        print(_CLEAR_ALL, end="")
    while True:
        try:
            text = _ask(args)
        except _NoAnswerError as error:
            if is_screen:
                _paint([f"encke: {error}"])
            else:
                tell(str(error))
        else:
            if is_screen:
                _paint(_lines(text))
            elif args.json:
                print(text, flush=True)
            else:
                print("\n".join([*_lines(text), ""]), flush=True)
        time.sleep(args.watch)


def _paint(lines: Sequence[str]) -> None:
    """Write over what was shown, without a flicker; what does not fit is counted."""
    height = shutil.get_terminal_size().lines
    shown = list(lines)
    if len(shown) > height - 2:
        kept = max(1, height - 3)
        shown = [*shown[:kept], f"… {len(lines) - kept} more lines"]
    shown.append(time.strftime("%H:%M:%S"))
    body = "".join(f"{line}{_CLEAR_LINE}\n" for line in shown)
    print(f"{_HOME}{body}{_CLEAR_REST}", end="", flush=True)


def _lines(text: str) -> list[str]:
    answer: dict[str, Any] = json.loads(text)
    return lines_of(answer, _width())


def _width() -> int:
    """Of the terminal; of a pipe what $COLUMNS says (`watch` sets it), else 0: a line per node, for tools."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size((80, 24)).columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isascii() and columns.isdigit() and len(columns) < 6 else 0


def _ask(args: argparse.Namespace) -> str:
    """The answer of the admin port: JSON, in one line."""
    import http.client
    import urllib.error
    import urllib.request

    # As the client of the other commands: proxies of the environment are not used.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(base_url(args.url).rstrip("/") + "/2/admin/nodes")
        if args.admin_token:
            request.add_header("Authorization", f"Bearer {args.admin_token}")
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            text: str = answer.read().decode()
        if not isinstance(json.loads(text).get("nodes"), list):
            raise ValueError("not a list of nodes")
    except urllib.error.HTTPError as error:
        raise _NoAnswerError(f"{args.url} answered {error.code}: {_reason(error.read())}") from error
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        reason = getattr(error, "reason", error)
        hint = "is the server running? give --url URL"
        raise _NoAnswerError(f"no answer from {args.url} ({reason}): {hint}") from error
    return text


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace").strip()
