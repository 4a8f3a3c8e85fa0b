"""What a LocalRegistry and its RegistryServer say to each other: one JSON value a line, on a socket pair.

Both ends run the same code: one started the other. So there are no versions,
and a line that is not understood is a fault of ours that ends the connection.
"""

from __future__ import annotations

import asyncio
import socket

import msgspec

from cluster.model import NodeInfo
from cluster.registry.base import Snapshot

# A snapshot of some thousand nodes.
MAX_LINE_BYTES = 4 * 1024 * 1024


class Announce(msgspec.Struct, frozen=True, tag=True):
    """Register an entry, or replace what it announces."""

    # Chosen by the client, unique on its connection.
    entry: int
    info: NodeInfo


class Withdraw(msgspec.Struct, frozen=True, tag=True):
    """Remove an entry; one that is not there is no fault."""

    entry: int


class Sync(msgspec.Struct, frozen=True, tag=True):
    """Answer when everything said so far was done and told."""

    number: int


class Present(msgspec.Struct, frozen=True, tag=True):
    """Who is there, from now on."""

    snapshot: Snapshot


class Named(msgspec.Struct, frozen=True, tag=True):
    """An entry stands, as this incarnation."""

    entry: int
    instance: str


class Synced(msgspec.Struct, frozen=True, tag=True):
    """The answer to a Sync."""

    number: int


Request = Announce | Withdraw | Sync
News = Present | Named | Synced


async def open_end(end: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Read and write one end of a socket pair. The streams own it from now on."""
    return await asyncio.open_unix_connection(sock=end, limit=MAX_LINE_BYTES)


def encode(message: Request | News) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Read a client's line.

    Raises:
        msgspec.DecodeError: it is none.
    """
    request: Request = msgspec.json.decode(line, type=Request)
    return request


def decode_news(line: bytes) -> News:
    """Read a server's line.

    Raises:
        msgspec.DecodeError: it is none.
    """
    news: News = msgspec.json.decode(line, type=News)
    return news
