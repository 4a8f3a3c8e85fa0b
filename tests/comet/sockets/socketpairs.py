"""Transports on real sockets, and users that write down what they are told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import SocketType

from comet.sockets.poller import Poller
from comet.sockets.transport import SocketTransport, TransportUser


class User(TransportUser):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.transport: SocketTransport | None = None
        self.received = b""
        # In order: made, eof, pause, resume, lost.
        self.told: list[str] = []
        # Writes that had not gone out at the end.
        self.unread = 0
        # Done with the bytes, beside keeping them.
        self.on_data: Callable[[bytes], None] = lambda data: None

    def connection_made(self, transport: SocketTransport) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.on_data(data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, unread: int) -> None:
        self.told.append("lost")
        self.unread = unread


class Pair:
    """A transport with its user, and the peer's socket, which does not wait."""

    def __init__(self, poller: Poller) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            # Small, so that little written data fills it.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            self.peer = socket.socket()
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            self.peer.connect(listening.getsockname())
            accepted = listening.accept()[0]
        self.peer.setblocking(False)
        self.user = User()
        sock = SocketType(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self.transport = SocketTransport(poller, sock, self.user)
        self.transport.begin()

    def read(self) -> bytes:
        """What has arrived at the peer; empty when nothing has, or when it has ended."""
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""

    async def read_until(self, size: int) -> bytes:
        """That many bytes at the peer."""
        data = b""
        async with asyncio.timeout(20):
            while len(data) < size:
                data += self.read()
                await asyncio.sleep(0)
        return data


@contextmanager
def running_poller(now: Callable[[], float] | None = None) -> Iterator[Poller]:
    """A poller in the running loop; `now` is the loop's unless given."""
    loop = asyncio.get_running_loop()
    poller = Poller(loop, now or loop.time)
    poller.start()
    try:
        yield poller
    finally:
        poller.stop()


@contextmanager
def running_pairs(count: int, now: Callable[[], float] | None = None) -> Iterator[list[Pair]]:
    """Several transports at one poller."""
    with running_poller(now) as poller:
        pairs = [Pair(poller) for _ in range(count)]
        try:
            yield pairs
        finally:
            for pair in pairs:
                pair.peer.close()


@contextmanager
def running_pair(now: Callable[[], float] | None = None) -> Iterator[Pair]:
    """One transport."""
    with running_pairs(1, now) as (pair,):
        yield pair
