"""The client's side of push streams, and the lines that go through them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.peer import Peer
from tests.support.web import Web

HEAD = b"POST /2/admin/push/stream HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"


class Stream:
    """The client's side of one stream."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.peer.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def push(self, key: str, msg: object = 1, **more: Any) -> None:
        await self.send(line(key, msg, **more))

    async def end(self) -> None:
        await self.peer.send(b"0\r\n\r\n")

    async def answer(self) -> Any:
        """The next answer line."""
        while b"\n" not in self._buffer:
            chunk = await self._chunk()
            assert chunk, "the stream has ended"
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(text)

    async def rest(self) -> list[Any]:
        """All answers until the stream's proper end."""
        while chunk := await self._chunk():
            self._buffer += chunk
        return [json.loads(text) for text in self._buffer.splitlines()]

    async def _chunk(self) -> bytes:
        async with asyncio.timeout(10):
            size = int(await self.peer.reader.readline(), 16)
            return (await self.peer.reader.readexactly(size + 2))[:-2]


def line(key: str, msg: object = 1, **more: Any) -> bytes:
    return json.dumps({"key": key, "msg": msg, "expire": 0, **more}).encode() + b"\n"


def outcome(answer: Any) -> str:
    """The key that was pushed to, or the code of the error."""
    return str(answer["results"][0]["key"] if "results" in answer else answer["error"]["code"])


@asynccontextmanager
async def opened(web: Web, *headers: bytes) -> AsyncIterator[Stream]:
    peer = await Peer.connect(web.address("admin"))
    try:
        await peer.send(HEAD + b"".join(header + b"\r\n" for header in headers) + b"\r\n")
        async with asyncio.timeout(10):
            head = await peer.reader.readuntil(b"\r\n\r\n")
            if headers:
                assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
                head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"), head
        yield Stream(peer)
    finally:
        await peer.close()
