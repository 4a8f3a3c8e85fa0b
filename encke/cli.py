"""The `encke` command: finds the subcommand, turns its failure into one line and an exit code.

Exit codes: 0 done; 1 it failed, one line on stderr says why; 2 wrong usage or
configuration, nothing was begun; 130 interrupted; 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from cluster.errors import ConfigError, EnckeError
from encke.commands.arguments import Parser, tell
from encke.version import encke_version

# In the order of `encke --help`.
COMMANDS = ("serve", "comet", "message", "web", "push", "sub", "nodes", "ready", "token", "config", "backup")

FAILED = 1
USAGE = 2
INTERRUPTED = 130
NO_READER = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
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
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (EnckeError, OSError) as error:
        tell(str(error))
        code = FAILED
    return _flush(code)


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Describe the command line; only the given command when it is one, for a quick start."""
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
    return importlib.import_module(f"encke.commands.{name}")


def _print_version() -> int:
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
            tell(str(error))
        return code or FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
