"""One client socket of a test: raw bytes with deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

Address = tuple[str, int]

# Only ever waited for when something is wrong; a shared machine can stand still for 15 s.
DEADLINE_S = 30.0


class Peer:
    """One socket: raw bytes with deadlines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: Address, receive_buffer_bytes: int = 0) -> Peer:
        """Open a connection, with a small receive window if asked."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            if receive_buffer_bytes:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            connection.setblocking(False)
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.get_running_loop().sock_connect(connection, address)
            # The limit is also what streams read ahead of the test.
            limit = receive_buffer_bytes or 2**16
            reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
        except BaseException:
            connection.close()
            raise
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        """Write bytes and wait until the socket has taken them."""
        async with asyncio.timeout(DEADLINE_S):
            self.writer.write(data)
            await self.writer.drain()

    async def read_exactly(self, size: int, within: float = DEADLINE_S) -> bytes:
        """Read that many bytes.

        Raises:
            ConnectionError, asyncio.IncompleteReadError: the connection ended first.
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(within):
            return await self.reader.readexactly(size)

    async def read_to_end(self, within: float = DEADLINE_S) -> bytes:
        """Read until the server ends the connection; a reset counts as an end."""
        data = bytearray()
        async with asyncio.timeout(within):
            while True:
                try:
                    part = await self.reader.read(65536)
                except ConnectionError:
                    part = b""
                if not part:
                    return bytes(data)
                data += part

    async def close(self) -> None:
        """Close the socket; what is unread is lost."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def reset(self) -> None:
        """End with a TCP reset."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()
