"""What the commands share: the parser of every command line, arguments, words on standard error."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

ADMIN_URL = "http://127.0.0.1:8091"


class Parser(argparse.ArgumentParser):
    """A parser that takes a flag by its whole name only; its subparsers are of this kind too.

    argparse would take `--admin URL` for `--admin-token URL`, and a command that works
    today would change its meaning with the next flag that begins alike.
    """

    # The positional argument that takes words behind flags too, as in `encke push KEY --expire 60 JSON`;
    # argparse gives it only those that stand in a row. Empty: none.
    words_anywhere = ""

    def __init__(self, **words: Any) -> None:
        super().__init__(allow_abbrev=False, **words)

    def parse_known_args(  # type: ignore[override]  # the same for each of its overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Tell of what is unknown here, where the usage is that of the right command."""
        known, unknown = super().parse_known_args(args, namespace)
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if flags:
            self.error(
                f"there is no {' and no '.join(map(self._with_likely, flags))}; see {self.prog} --help"
            )
        if unknown and self.words_anywhere:
            getattr(known, self.words_anywhere).extend(unknown)
            return known, []
        if unknown:
            self.error(f"{' '.join(map(repr, unknown))}: too many arguments; see {self.prog} --help")
        return known, unknown

    def _with_likely(self, flag: str) -> str:
        likely = _likely(flag, self._option_string_actions)
        return f"{flag} (did you mean {' or '.join(likely)}?)" if likely else flag


def _likely(flag: str, flags: Iterable[str]) -> list[str]:
    """Those that it begins, otherwise the one that it resembles."""
    import difflib

    longer = [name for name in flags if name.startswith(flag)]
    return longer or difflib.get_close_matches(flag, flags, n=1)


def tell(*lines: str) -> None:
    """Say what is wrong, or happens, to whoever runs the command: on standard error."""
    for line in lines:
        print(f"encke: {line}", file=sys.stderr, flush=True)


def add_admin_flags(parser: argparse.ArgumentParser) -> None:
    """Where the admin port is, and what it asks for."""
    parser.add_argument(
        "--url", default=ADMIN_URL, help=f"admin address of the server or a balancer ({ADMIN_URL})"
    )
    parser.add_argument(
        "--admin-token",
        metavar="TOKEN",
        default=os.environ.get("ENCKE_ADMIN_TOKEN", ""),
        help="where the admin port asks for one ($ENCKE_ADMIN_TOKEN)",
    )


def base_url(text: str) -> str:
    """The address of a server, which may have been given as "host:port" only."""
    return text if "://" in text else f"http://{text}"


def whole_number(least: int, most: int, fault: str) -> Callable[[str], int]:
    """A number within these bounds, in decimal digits only.

    Args:
        fault: said behind what is none: "is not a number of messages".
    """

    def read(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not is_number or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} {fault}")
        return int(text)

    return read


def seconds(least: float) -> Callable[[str], float]:
    """A time of at least so many seconds, and not for ever."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number < math.inf:
            raise argparse.ArgumentTypeError(f"must be at least {least:g} seconds, got {text!r}")
        return number

    return read
