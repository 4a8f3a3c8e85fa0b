"""A peer of RPC that says what a test wants, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster.rpc.config import RpcConfig
from cluster.rpc.frames import LENGTH, FrameReader, request_head
from cluster.rpc.handshake import ClientHandshake, ServerHandshake, Versions
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import QUICK, SERVICE, Service

# Nothing waits this long when all is well.
PATIENCE_S = 20.0
OURS = Versions.up_to(1)
NONCE = b"n" * 32


class Peer:
    """A raw socket that can speak the protocol, or not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(10_000_000)
        self._ready: list[bytes] = []

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def send_body(self, body: bytes) -> None:
        self.send(LENGTH.pack(len(body)) + body)

    def call(self, number: int, method: int, payload: bytes, timeout_ms: int = 20_000) -> None:
        self.send(request_head(len(payload), number, method, timeout_ms) + payload)

    async def frame(self) -> bytes:
        """The next frame that is no ping."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._ready:
                data = await self._reader.read(65536)
                assert data, "closed by the other side"
                self._ready += self._frames.feed(data)
        return self._ready.pop(0)

    async def closed(self) -> bytes:
        """Wait until the other side closes; what it said before."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read()
        return b""

    async def shake(self, handshake: ClientHandshake) -> None:
        self.send_body(handshake.begin())
        while handshake.version is None:
            answer = handshake.receive(await self.frame())
            if answer is not None:
                self.send_body(answer)

    async def let_in(self, handshake: ServerHandshake) -> None:
        while handshake.version is None:
            self.send_body(handshake.receive(await self.frame()))

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def server(config: RpcConfig = QUICK) -> AsyncIterator[tuple[RpcServer, Service, Peer]]:
    """A server and a raw socket that is connected to it."""
    service = Service()
    rpc = RpcServer(SERVICE, service.routes(), config)
    await rpc.start()
    peer = Peer(*await asyncio.open_connection(*rpc.address.split(":")))
    try:
        yield rpc, service, peer
    finally:
        await peer.close()
        await rpc.stop(0.0)


@asynccontextmanager
async def known(config: RpcConfig = QUICK) -> AsyncIterator[tuple[RpcServer, Service, Peer]]:
    """The same after the handshake."""
    async with server(config) as (rpc, service, peer):
        await peer.shake(ClientHandshake(SERVICE, OURS, config.secret, NONCE))
        yield rpc, service, peer
