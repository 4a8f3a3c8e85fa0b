"""Test subscribers over raw TCP and raw WebSocket: asyncio streams, none of the product's code.

They keep to the protocol and notice what breaks it: a masked or fragmented
server frame, a frame whose length is wrong, bytes after the end.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.support.frames import CLOSE, PING, PONG, TEXT, frame
from tests.support.peer import DEADLINE_S, Address, Peer

HEARTBEAT_LINE = b"+h\r\n"
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Line:
    """A bare line of the protocol: a heartbeat or a refusal, with its CRLF."""

    text: bytes


@dataclass(frozen=True)
class Document:
    """A JSON document: a message or a gap."""

    raw: bytes

    @property
    def value(self) -> Any:
        """It, parsed."""
        return json.loads(self.raw)

    @property
    def mid(self) -> int:
        """The mid of a message."""
        mid = self.value["mid"]
        assert isinstance(mid, int)
        return mid


@dataclass(frozen=True)
class End:
    """The connection has ended; code 0 = without a word."""

    code: int = 0
    reason: str = ""


Received = Line | Document | End


class Subscriber:
    """A subscriber: what TCP and WebSocket have in common."""

    transport = ""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        # Mid of the last message that was received.
        self.last_mid = 0

    async def receive(self, within: float = DEADLINE_S) -> Received:
        """The next line, document or the end.

        Cancellation: the connection cannot be used any more.
        """
        async with asyncio.timeout(within):
            try:
                received = await self._receive()
            except (ConnectionError, asyncio.IncompleteReadError):
                return End(self._end_code(), self._end_reason())
        if isinstance(received, Document) and "mid" in received.value:
            self.last_mid = received.mid
        return received

    async def open(self) -> None:
        """Wait for the first heartbeat."""
        first = await self.receive()
        assert first == Line(HEARTBEAT_LINE), f"expected the first heartbeat, got {first}"

    async def next_document(self, within: float = DEADLINE_S) -> Document:
        """The next message or gap, over heartbeats."""
        async with asyncio.timeout(within):
            while True:
                received = await self.receive(within)
                if isinstance(received, Document):
                    return received
                assert received == Line(HEARTBEAT_LINE), f"expected a document, got {received}"

    async def documents(self, count: int, within: float = DEADLINE_S) -> list[Document]:
        """The next documents."""
        async with asyncio.timeout(within):
            return [await self.next_document(within) for _ in range(count)]

    async def end(self, within: float = DEADLINE_S) -> End:
        """Read until the connection ends, over everything else."""
        async with asyncio.timeout(within):
            while not isinstance(received := await self.receive(within), End):
                pass
            return received

    async def beat(self) -> None:
        """Send a heartbeat and wait for its answer; documents before it are an error."""
        await self.send_beat()
        answer = await self.receive()
        assert answer == Line(HEARTBEAT_LINE), f"expected the answer to a heartbeat, got {answer}"

    async def close(self) -> None:
        """Close without a word."""
        await self.peer.close()

    async def send_beat(self) -> None:
        """Send a heartbeat."""
        raise NotImplementedError

    async def acknowledge(self, mid: int) -> None:
        """Send an acknowledgement (version 2)."""
        raise NotImplementedError

    async def _receive(self) -> Received:
        raise NotImplementedError

    def _end_code(self) -> int:
        return 0

    def _end_reason(self) -> str:
        return ""


def command(*arguments: str | bytes) -> bytes:
    """A RESP-style array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument.encode() if isinstance(argument, str) else argument
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class TcpSubscriber(Subscriber):
    """Lines and bulk strings."""

    transport = "tcp"

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._farewell = End()

    async def send_beat(self) -> None:
        """See Subscriber."""
        await self.peer.send(b"h")

    async def acknowledge(self, mid: int) -> None:
        """See Subscriber."""
        await self.peer.send(b"a%d\r\n" % mid)

    async def _receive(self) -> Received:
        line = await self.peer.reader.readuntil(b"\r\n")
        if line[:1] == b"$":
            size = int(line[1:-2])
            data = await self.peer.reader.readexactly(size + 2)
            assert data[-2:] == b"\r\n", "the length of a frame is wrong"
            return Document(data[:-2])
        if line[:1] == b"-" and line[1:2].isdigit():
            code, _, reason = line[1:-2].decode().partition(" ")
            self._farewell = End(int(code), reason)
            # Nothing may follow its last words.
            rest = await self.peer.reader.read(1)
            assert rest == b"", f"bytes after the farewell: {rest!r}"
            return self._farewell
        return Line(line)


class WebSocketSubscriber(Subscriber):
    """Text frames."""

    transport = "ws"

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._closed = End(1006)

    async def send_beat(self) -> None:
        """See Subscriber."""
        await self.send_frame(TEXT, b"h")

    async def acknowledge(self, mid: int) -> None:
        """See Subscriber."""
        await self.send_frame(TEXT, b"a%d" % mid)

    async def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send one whole frame."""
        await self.peer.send(frame(opcode, payload))

    async def receive_frame(self) -> tuple[int, bytes]:
        """Read one frame of the server: opcode and payload."""
        first, second = await self.peer.reader.readexactly(2)
        assert first & 0xF0 == 0x80, f"a fragment or reserved bits: {first:#x}"
        assert second & 0x80 == 0, "the server masks"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.peer.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.peer.reader.readexactly(8))
        return first & 0xF, await self.peer.reader.readexactly(size)

    async def _receive(self) -> Received:
        while True:
            opcode, payload = await self.receive_frame()
            if opcode == TEXT:
                return Document(payload) if payload[:1] == b"{" else Line(payload)
            if opcode == CLOSE:
                return await self._take_close(payload)
            if opcode == PING:
                await self.send_frame(PONG, payload)

    async def _take_close(self, payload: bytes) -> End:
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        try:
            await self.send_frame(CLOSE, payload[:2])
            rest = await self.peer.reader.read(1)
            assert rest == b"", f"bytes after the close frame: {rest!r}"
        except ConnectionError:
            pass
        return End(code, payload[2:].decode())

    def _end_code(self) -> int:
        return self._closed.code


def handshake(target: str, host: str, headers: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """An opening handshake and the Sec-WebSocket-Accept that answers it."""
    key = base64.b64encode(os.urandom(16))
    lines = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    text = f"GET {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return text.encode(), base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())


async def subscribe_tcp(
    address: Address,
    key: str,
    *,
    version: str = "",
    mid: str | int = "",
    device: str = "",
    token: str = "",
    heartbeat_s: int = 30,
    receive_buffer_bytes: int = 0,
) -> TcpSubscriber:
    """Connect and send the subscription; the answer is still to be read."""
    arguments = ["sub", key, str(heartbeat_s), token, version, str(mid), device]
    while len(arguments) > 3 and not arguments[-1]:
        arguments.pop()
    peer = await Peer.connect(address, receive_buffer_bytes)
    try:
        await peer.send(command(*arguments))
    except BaseException:
        await peer.close()
        raise
    return TcpSubscriber(peer)


async def subscribe_websocket(
    address: Address,
    key: str,
    *,
    version: str = "",
    mid: str | int = "",
    device: str = "",
    token: str = "",
    heartbeat_s: int = 30,
    receive_buffer_bytes: int = 0,
    headers: dict[str, str] | None = None,
) -> WebSocketSubscriber:
    """Connect and shake hands; the first frame is still to be read."""
    values = {"key": key, "heartbeat": heartbeat_s, "token": token, "ver": version, "mid": mid, "dev": device}
    target = "/sub?" + urlencode({name: value for name, value in values.items() if value != ""})
    request, accept = handshake(target, f"{address[0]}:{address[1]}", headers)
    peer = await Peer.connect(address, receive_buffer_bytes)
    try:
        await peer.send(request)
        async with asyncio.timeout(DEADLINE_S):
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"Sec-WebSocket-Accept: " + accept in head, head
    except BaseException:
        await peer.close()
        raise
    return WebSocketSubscriber(peer)
