"""The `encke` command: finds the subcommand, turns its failure into one line and an exit code.

Exit codes: 0 done; 1 it failed, one line on stderr says why; 2 wrong usage or
configuration, nothing was begun; 130 interrupted; 141 nobody reads the output.
"""

from __future__ import annotations

import os
import sys

from encke.interrupts import INTERRUPTED, catch_interrupts, release_interrupts

# As in typing. Nothing that takes time is imported before main() is ready for an interrupt.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import ModuleType

# In the order of `encke --help`.
COMMANDS = ("serve", "comet", "message", "web", "push", "sub", "nodes", "ready", "token", "config", "backup")

FAILED = 1
USAGE = 2
NO_READER = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    _open_standard_descriptors()
    catch_interrupts()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        release_interrupts()
    return _flush(code)


def _run(words: list[str]) -> int:
    from cluster.errors import ConfigError, EnckeError
    from encke.commands.arguments import tell

    parser = build_parser(words[0] if words else None)
    args = parser.parse_args(words)
    if not args.version and "run" not in args:
        parser.error("which command? see encke --help")
    try:
        code: int = _print_version() if args.version else args.run(args)
    except ConfigError as error:
        tell(*error.faults)
        code = USAGE
    except BrokenPipeError:
        code = NO_READER
    except (EnckeError, OSError) as error:
        tell(str(error))
        code = FAILED
    return code


def _open_standard_descriptors() -> None:
    """Give the null device to standard descriptors that were closed before we were started.

    Otherwise a socket or a file of ours takes the number: what is meant for the standard
    stream goes there, and libuv aborts the process when it closes it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest that is free: those below are open. Workers inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Describe the command line; only the given command when it is one, for a quick start."""
    from encke.commands.arguments import Parser

    parser = Parser(
        prog="encke", description="A push server: keeps connections, delivers what a backend pushes."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    for name in (command,) if command in COMMANDS else COMMANDS:
        module = _module(name)
        module.add_parser(subparsers)
        subparsers.choices[name].set_defaults(run=module.run)
    return parser


def _module(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(f"encke.commands.{name}")


def _print_version() -> int:
    from encke.version import encke_version

    print(f"encke {encke_version()}")
    return 0


def _flush(code: int) -> int:
    """Write what was printed; what the command ends with, now that this has succeeded or failed."""
    # None: it was closed before we were started, and print() says nothing then.
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try again at exit, and complain in words and with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return NO_READER
        if not code:
            from encke.commands.arguments import tell

            tell(str(error))
        return code or FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
