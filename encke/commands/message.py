"""`encke message`: a node that saves and loads stored messages."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from encke.commands.running import add_node_flags, load_node_config, run_node, say

if TYPE_CHECKING:
    from encke.config import EnckeConfig


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "message",
        help="run one message node of a cluster",
        description="Save and load messages in the store that message.store names.",
    )
    add_node_flags(parser, "message")
    parser.add_argument(
        "--init-schema", action="store_true", help="make or update the tables of the MySQL store, then end"
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal; 0 after an orderly drain."""
    config = load_node_config(args, "message")
    if args.init_schema:
        return _init_schema(config)
    return run_node(config, "message")


def _init_schema(config: EnckeConfig) -> int:
    from cluster.errors import ConfigError
    from message.storage.build import init_mysql_schema
    from message.storage.mysql.schema import MIGRATIONS

    if config.message.store != "mysql":
        advice = 'only "mysql" has tables to make; give the --config FILE of its nodes'
        raise ConfigError([f'message.store is "{config.message.store}": {advice}'])
    present = len(MIGRATIONS)
    for server, version in init_mysql_schema(config.mysql):
        if version == present:
            say(f"{server}: nothing to do, the tables are of version {version}")
        elif version:
            say(f"{server}: tables brought from version {version} to {present}")
        else:
            say(f"{server}: tables made, version {present}")
    return 0
