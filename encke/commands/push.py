"""`encke push KEY JSON`: push one value, or a stream of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

from cluster.errors import ConfigError
from encke.commands.arguments import Parser, add_admin_flags, base_url, seconds, tell, whole_number
from encke.interrupts import release_interrupts

if TYPE_CHECKING:
    import msgspec

    from encke.client import Publisher, PushError, PushFailure, PushReply, PushResult

MIN_TIMEOUT_S = 0.05
EXAMPLE = """
examples:
  encke push alice '{"text": "hello"}'             to whoever is online as alice
  encke push alice bob '"two keys"' --expire 600   stored for ten minutes
  echo '[1, 2]' | encke push alice -               the JSON comes from stdin
  encke push --stream --expire 60 < pushes.ndjson  lines like {"key":"alice","msg":1,"expire":600}
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "push",
        help="push a value",
        usage="encke push KEY [KEY ...] JSON [options] | encke push --stream [options]",
        description="Push a JSON value to one key or several, and tell for each the mid of its message and"
        " how many connections took it.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="KEY ... JSON", help="keys, and a JSON value; - is stdin")
    assert isinstance(parser, Parser)
    parser.words_anywhere = "words"
    parser.add_argument(
        "--expire",
        metavar="S",
        type=whole_number(0, 2**32 - 1, "is not a number of seconds below 2^32"),
        default=0,
        help="seconds in the store; 0: only for who is online now (0)",
    )
    parser.add_argument("--id", default="", help="repeated with the same id it is pushed once")
    parser.add_argument("--stream", action="store_true", help="push each line of stdin, see below")
    parser.add_argument("--json", action="store_true", help="print each result as one JSON object")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=seconds(MIN_TIMEOUT_S),
        default=30.0,
        help="try again for so long when it fails (30)",
    )
    add_admin_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Push; 1 when a key failed."""
    from encke.client import ClientError

    fault = _fault(args)
    if fault is not None:
        raise ConfigError([fault])
    release_interrupts()
    try:
        if args.stream:
            return asyncio.run(_stream(args))
        # Before the loop, which would take Ctrl-C away from a read that waits.
        value = _json(sys.stdin.buffer.read() if args.words[-1] == "-" else os.fsencode(args.words[-1]))
        return asyncio.run(_push(args, value))
    except (ClientError, ValueError) as error:
        tell(str(error))
        return 1


def _fault(args: argparse.Namespace) -> str | None:
    if sys.stdin is None and (args.stream or args.words[-1:] == ["-"]):
        return "standard input is closed: nothing to push can be read from it"
    if args.stream:
        if args.words or args.id:
            return "with --stream, keys, values and ids come from stdin"
        return None
    if len(args.words) < 2:
        return "push what to whom? encke push KEY JSON"
    return None


async def _push(args: argparse.Namespace, value: msgspec.Raw) -> int:
    async with _publisher(args, _Patience(args.timeout)) as publisher:
        reply = await publisher.push_many(args.words[:-1], value, expire_s=args.expire, id=args.id)
    _print_reply(reply, args)
    return 1 if reply.failed else 0


async def _stream(args: argparse.Namespace) -> int:
    from encke.commands.pushlines import read_pushes

    bad_lines: list[str] = []
    pushed = failed = 0
    patience = _Patience(args.timeout)
    async with _publisher(args, patience) as publisher:
        async for reply in publisher.stream(read_pushes(sys.stdin.fileno(), args.expire, bad_lines)):
            patience.renew()
            _print_reply(reply, args)
            pushed += len(reply.results)
            failed += len(reply.failed) + (reply.error is not None)
    failed += len(bad_lines)
    tell(f"{pushed} pushed, {failed} failed")
    return 1 if failed else 0


class _Patience:
    """Tells why nothing happens: once, until a push succeeds again."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._is_told = False

    def renew(self) -> None:
        self._is_told = False

    def lose(self, error: PushError) -> None:
        if not self._is_told:
            tell(f"{error}; trying for {self._timeout_s:g} s")
        self._is_told = True


def _publisher(args: argparse.Namespace, patience: _Patience) -> Publisher:
    from encke.client import Publisher

    url = base_url(args.url)
    return Publisher(url, token=args.admin_token, timeout_s=args.timeout, on_retry=patience.lose)


def _json(data: bytes) -> msgspec.Raw:
    """Take JSON as it is; the server brings it to its form.

    Raises:
        ValueError: it is none.
    """
    import msgspec

    try:
        msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"""this is not JSON: {error} (a text needs its own quotes: '"hello"')""") from error
    return msgspec.Raw(data)


def _print_reply(reply: PushReply, args: argparse.Namespace) -> None:
    for result in reply.results:
        print(_result_json(result) if args.json else _result_words(result, args), flush=True)
    for failure in reply.failed:
        print(_failure_json(failure) if args.json else _failure_words(failure), flush=True)
    if reply.error is not None:
        words = f"push {reply.push_id or 'without an id'} failed: {reply.error}"
        print(_error_json(reply) if args.json else words, flush=True)


def _result_words(result: PushResult, args: argparse.Namespace) -> str:
    words = f"{result.key}: mid {result.mid}, "
    if result.repeated:
        return words + "pushed before with this id"
    if result.online:
        return words + f"{result.online} online"
    is_lost = not args.expire and not args.stream
    return words + ("nobody online, not stored (see --expire)" if is_lost else "nobody online")


def _result_json(result: PushResult) -> str:
    return json.dumps(
        {"key": result.key, "mid": result.mid, "online": result.online, "repeated": result.repeated},
        separators=(",", ":"),
    )


def _failure_words(failure: PushFailure) -> str:
    words = f"{failure.key}: failed: {failure.code}"
    # The answer names no cause, which is the operator's: a full disk, say.
    return f"{words} (not stored; the server's log says why)" if failure.code == "storage" else words


def _failure_json(failure: PushFailure) -> str:
    return json.dumps({"key": failure.key, "error": failure.code}, separators=(",", ":"))


def _error_json(reply: PushReply) -> str:
    return json.dumps({"id": reply.push_id, "error": reply.error and reply.error.code}, separators=(",", ":"))
