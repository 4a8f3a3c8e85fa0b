"""A WebSocket echo server on the product's own frame codec and handshake, for the Autobahn cases."""

from __future__ import annotations

import asyncio
from typing import cast

from comet.codec.frames import (
    Close,
    FrameDecoder,
    FrameFailure,
    FrameMessage,
    Opcode,
    Ping,
    close_frame,
    data_frame,
    pong_frame,
)
from comet.codec.handshake import PATH, Rejection, read_request

# The cases 1 to 7 send up to 64 KiB.
MAX_MESSAGE_BYTES = 1024 * 1024


class Echo(asyncio.Protocol):
    """One connection: every message goes back as it came."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._held: bytes | None = b""
        self._decoder = FrameDecoder(MAX_MESSAGE_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._held is None:
            self._echo(data)
            return
        # The cases ask for "/"; everything else of the handshake is the product's.
        self._held = (self._held + data).replace(b"GET / ", b"GET %b " % PATH.encode(), 1)
        request = read_request(self._held, ())
        if request is None:
            return
        self.transport.write(request.response)
        if isinstance(request, Rejection):
            self.transport.close()
            return
        frames, self._held = self._held[request.size :], None
        self._echo(frames)

    def _echo(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            match event:
                case FrameMessage(is_text, payload):
                    self.transport.write(data_frame(Opcode.TEXT if is_text else Opcode.BINARY, payload))
                case Ping(payload):
                    self.transport.write(pong_frame(payload))
                case Close(code):
                    self.transport.write(close_frame(code))
                    self.transport.close()
                case FrameFailure(code, text):
                    self.transport.write(close_frame(code, text))
                    self.transport.close()


async def start_echo_server() -> tuple[asyncio.Server, int]:
    """Listen on a free loopback port; the caller closes the server."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return server, port
