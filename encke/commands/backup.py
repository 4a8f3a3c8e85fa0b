"""`encke backup TARGET`: copy the embedded store, also of a running server."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "backup",
        help="copy the store of a running or stopped server",
        description="Copy the embedded store into one file. The server may go on meanwhile. "
        "To restore, stop it and put the copy into an empty data directory as store.db.",
    )
    parser.add_argument("target", metavar="TARGET", type=Path, help="the file to make; it must not exist")
    parser.add_argument("--data-dir", metavar="DIR", help="the server's data directory (encke-data)")
    parser.add_argument("--config", metavar="FILE", help="the server's configuration, for its data directory")


def run(args: argparse.Namespace) -> int:
    """Copy, and tell the size."""
    from encke.config import load_config
    from message.storage.embedded.backup import backup

    directory = args.data_dir or load_config(args.config, used=("message",)).message.data_dir
    size = backup(Path(directory), args.target)
    print(f"{args.target}: {size:,} bytes")
    return 0
