"""`encke config check FILE` and `encke config example`."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "config",
        help="check a configuration file, or print the documented example",
        description="Flags win over the environment (ENCKE_TABLE__KEY=...), and that over the file.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action", help="one of:")
    check = actions.add_parser(
        "check", help="read a file (and the environment) as a node would; tell all faults"
    )
    check.add_argument("file", metavar="FILE", help="TOML, as `encke config example` prints it")
    actions.add_parser("example", help="print a file with every key, its default and what it does")


def run(args: argparse.Namespace) -> int:
    """Check or print."""
    from cluster.config import changed, example
    from cluster.errors import ConfigError
    from encke.config import EnckeConfig, call_faults, load_config

    if args.action == "example":
        print(example(EnckeConfig), end="")
        return 0
    config = load_config(args.file)
    if faults := call_faults(config):
        raise ConfigError(faults)
    lines = list(changed(config))
    print(f"{args.file}: good; {len(lines)} settings differ from their defaults")
    for line in lines:
        print(f"  {line}")
    return 0
