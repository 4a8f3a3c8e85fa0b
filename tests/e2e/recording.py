"""The recorded conversations, and how what the server says is compared with them."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from pathlib import Path

from tests.e2e import vector_differences as differences
from tests.support.peer import Peer
from tests.support.subscriber import HEARTBEAT_LINE, Document, Line, Subscriber

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent / "vectors" / "gopush_vectors.json").read_text())
}


def names(proto: str) -> list[str]:
    special = differences.SCENES | set(differences.NOT_REPLAYED)
    return [name for name, v in VECTORS.items() if v["proto"] == proto and name not in special]


def without_mids(data: bytes) -> bytes:
    """17 digits are a mid, in a document or at the end of a query."""
    return re.sub(rb"(?<![0-9])1[0-9]{16}(?![0-9])", b"MID", data)


def recorded_bytes(text: str) -> bytes:
    return text.encode("latin-1")


async def what_arrives(subscriber: Subscriber) -> bytes:
    """The document that has been delivered before the push was answered; nothing when there is none.

    A heartbeat that is sent after the answer is answered after the delivery.
    """
    await subscriber.send_beat()
    received = await subscriber.receive()
    if received == Line(HEARTBEAT_LINE):
        return b""
    assert isinstance(received, Document), received
    assert await subscriber.receive() == Line(HEARTBEAT_LINE)
    return received.raw


def framed(document: bytes) -> bytes:
    """As the recording has it: with the length that it has with a real mid."""
    return b"$%d\r\n%b\r\n" % (len(document), without_mids(document)) if document else b""


async def read_head(peer: Peer) -> bytes:
    async with asyncio.timeout(10):
        return await peer.reader.readuntil(b"\r\n\r\n")


# The text of an error is not compared, so neither are the headers that describe it.
UNCOMPARED = (
    b"date:",
    b"content-type:",
    b"content-length:",
    b"x-content-type-options:",
    b"connection: close",
)


def assert_headers_kept(expected: bytes, head: bytes) -> None:
    lines = {line.lower() for line in head.split(b"\r\n")[1:]}
    for line in expected.lower().split(b"\r\n")[1:]:
        assert line in lines or line.startswith(UNCOMPARED), line


def close_code(end: bytes) -> int:
    """Of the one close frame that these bytes must be."""
    assert end[0] == 0x88, end
    assert end[1] == len(end) - 2, end
    code = struct.unpack("!H", end[2:4])[0] if len(end) > 2 else 1005
    assert isinstance(code, int)
    return code
