"""A process that saves until it is killed, and says what was answered.

    python -m tests.message.storage.saving_process DIRECTORY

Prints "ready", then "ack KEY PAYLOAD" for each answered save, each with one
write. Ends with code 3 when the store says that it cannot go on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from cluster.contracts.message import SaveBatch, SaveItem
from cluster.errors import EnckeError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from encke.commands.arguments import Parser
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.stores import open_store

STORE_FAILED = 3


def main() -> None:
    parser = Parser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--durability", default="fsync")
    parser.add_argument("--keys", type=int, default=1, help="saved to at the same time")
    parser.add_argument("--saves", type=int, default=1_000_000, help="per key")
    parser.add_argument("--prefix", default="", help="of the push ids and payloads")
    sys.exit(asyncio.run(run(parser.parse_args())))


async def run(options: argparse.Namespace) -> int:
    """Save to all keys until the end, or until the store has failed."""
    # Nothing but saves from here on: the first search for expired messages is over.
    async with open_store(options.data_dir, durability=options.durability) as store:
        say("ready")
        await asyncio.gather(*(save(store, Key(f"key{n}"), options) for n in range(options.keys)))
    return STORE_FAILED if store.failed.done() else 0


async def save(store: EmbeddedStore, key: Key, options: argparse.Namespace) -> None:
    """Save one message after the other to a key; stop at the first that fails once the store has failed."""
    for number in range(options.saves):
        payload = f"{options.prefix}{number}"
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        item = SaveItem(payload, payload.encode(), 600)
        try:
            await store.save(SaveBatch(key, [item], Mid(0), deadline))
        except EnckeError as error:
            say(f"failed {key} {payload} {type(error).__name__}")
            if store.failed.done():
                return
            continue
        say(f"ack {key} {payload}")


def say(line: str) -> None:
    """One line, one write."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main()
