"""`encke sub KEY`: print a key's messages as they come."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Literal

from encke.commands.arguments import base_url, tell, whole_number
from encke.interrupts import release_interrupts

if TYPE_CHECKING:
    import ssl

    from encke.client import Gap, Message, Status, Subscriber

DEFAULT_URL = "http://127.0.0.1:8090"

_mid = whole_number(0, 2**63 - 1, 'is neither a mid nor "ack"')


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "sub",
        help="print a key's messages",
        description="Print the messages of a key, one a line: its mid and its JSON. Reconnects and resumes by"
        " itself; what happens to the connection is told on stderr. Ctrl-C ends it.",
    )
    parser.add_argument("key", metavar="KEY", help="whose messages")
    parser.add_argument(
        "--resume",
        metavar="MID|ack",
        type=_resume,
        help='begin after this mid (0: everything stored), or "ack": after what this device has'
        " acknowledged, and acknowledge what is printed (default: messages from now on)",
    )
    parser.add_argument("--device", metavar="NAME", default="", help="whose acknowledgements (default: none)")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        default=os.environ.get("ENCKE_TOKEN", ""),
        help="subscriber token, see encke token ($ENCKE_TOKEN)",
    )
    parser.add_argument(
        "--transport",
        choices=["websocket", "tcp"],
        default="websocket",
        help="what to connect by (websocket)",
    )
    parser.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="whether to connect with TLS (as --url: with it for https, without for http)",
    )
    parser.add_argument("--json", action="store_true", help="print each message or gap as one JSON object")
    parser.add_argument(
        "--count",
        metavar="N",
        type=whole_number(1, 10**18 - 1, "is not a number of messages"),
        help="end after so many messages",
    )
    parser.add_argument(
        "--url", default=DEFAULT_URL, help=f"public address of the server or a balancer ({DEFAULT_URL})"
    )


def run(args: argparse.Namespace) -> int:
    """Print messages until interrupted, refused, or enough."""
    from encke.client import ClientError

    release_interrupts()
    try:
        asyncio.run(_print_until_end(args))
    except (ClientError, ValueError) as error:
        tell(str(error))
        return 1
    return 0


async def _print_until_end(args: argparse.Namespace) -> None:
    from encke.commands.reader import while_somebody_reads

    if sys.stdout is None:
        # It was closed before we were started.
        await _print_messages(args)
        return
    with while_somebody_reads(sys.stdout.fileno()):
        await _print_messages(args)


async def _print_messages(args: argparse.Namespace) -> None:
    from encke.client import Message, Subscriber

    url = base_url(args.url)
    subscriber = Subscriber(
        url,
        args.key,
        transport=args.transport,
        token=args.token,
        device=args.device,
        resume=args.resume,
        auto_acknowledge=args.resume == "ack",
        on_status=lambda status: _tell_status(args.key, status),
        tls=_tls(url, args.tls),
    )
    left: int | None = args.count
    async with subscriber:
        async for item in subscriber:
            print(_line(item, args.json), flush=True)
            if not isinstance(item, Message):
                _tell_gap(item)
            elif left is not None:
                left -= 1
                if not left:
                    await _finish(subscriber, args)
                    return


def _tls(url: str, is_wanted: bool | None) -> ssl.SSLContext | None:
    """For the connection to the node. The server names its host and port and not whether it takes TLS.

    What ends TLS before the public address does so for the nodes as a rule: no
    browser lets a page that came by https connect without.
    """
    if is_wanted is None:
        is_wanted = url.lower().startswith("https://")
    if not is_wanted:
        return None
    import ssl

    return ssl.create_default_context()


async def _finish(subscriber: Subscriber, args: argparse.Namespace) -> None:
    # Nobody asks for another message, which is what acknowledges the last one.
    if args.resume == "ack":
        await subscriber.acknowledge(subscriber.last_mid)


def _line(item: Message | Gap, is_json: bool) -> str:
    from encke.client import Message

    if isinstance(item, Message):
        payload = item.payload.decode()
        return f'{{"mid":{item.mid},"msg":{payload}}}' if is_json else f"{item.mid} {payload}"
    before = "null" if item.before is None else str(item.before)
    if is_json:
        return f'{{"gap":{{"after":{item.after},"before":{before}}}}}'
    return f"# gap: messages after {item.after} are lost"


def _tell_status(key: str, status: Status) -> None:
    from encke.client import Connected

    if isinstance(status, Connected):
        tell(f"subscribed to {key} at {status.address}")
        return
    # 1006 only means that the server did not say why.
    reason = status.reason if status.code == 1006 else f"{status.reason} ({status.code})"
    tell(f"{reason}; reconnecting in {status.delay_s:.1f} s")


def _tell_gap(gap: Gap) -> None:
    until = "" if gap.before is None else f" and before {gap.before}"
    tell(f"gap: the server had to drop messages after {gap.after}{until}")


def _resume(text: str) -> int | Literal["ack"]:
    return "ack" if text == "ack" else _mid(text)
