"""A TCP proxy that misbehaves on demand: stands between two real peers.

A fault holds for connections that exist and for later ones until heal().
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from enum import Enum
from typing import cast

from cluster.addresses import join_address, split_address


class Way(Enum):
    # From who connected towards the target.
    UP = "up"
    DOWN = "down"


BOTH = (Way.UP, Way.DOWN)


class FaultProxy:
    """Forwards everything until told otherwise."""

    def __init__(self, target: str) -> None:
        """Stand in front of "host:port"."""
        self.target = target
        self.address = ""
        # Connections that were accepted so far.
        self.accepted = 0
        self.is_refusing = False
        self.dropped: set[Way] = set()
        # What drop() has cost so far.
        self.lost_bytes = 0
        self.delay_s = 0.0
        # Bytes that may still pass before the connection is cut.
        self.left: dict[Way, int] = {}
        self.is_stalled = False
        self._sides: set[_Side] = set()
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, with TLS towards who connects if there is a certificate; `address` tells where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self, Way.UP, None), "127.0.0.1", 0, ssl=tls)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = join_address(host, port)

    async def stop(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
        self.cut()
        while sides := list(self._sides):
            await asyncio.wait([side.closed for side in sides])

    @property
    def connections(self) -> int:
        """Sockets that are open, on both sides."""
        return len(self._sides)

    def cut(self) -> None:
        """Reset every connection."""
        for side in list(self._sides):
            side.abort()

    def refuse(self) -> None:
        """Reset every connection, and new ones as they come."""
        self.is_refusing = True
        self.cut()

    def drop(self, *ways: Way) -> None:
        """Lose all bytes of a direction; nobody is told, not even of a closed connection."""
        self.dropped |= set(ways or BOTH)

    def stall(self) -> None:
        """Read nothing any more, on new connections neither: buffers fill up. Nothing is lost."""
        self.is_stalled = True
        for side in self._sides:
            side.pause()

    def truncate(self, way: Way, after_bytes: int) -> None:
        """Let so many more bytes pass in a direction, then cut."""
        self.left[way] = after_bytes

    def heal(self) -> None:
        """Forward again. What was lost stays lost."""
        self.is_refusing = self.is_stalled = False
        self.dropped.clear()
        self.left.clear()
        self.delay_s = 0.0
        for side in self._sides:
            side.resume()


class _Side(asyncio.Protocol):
    """One of the two sockets of a connection. `way` is where its bytes go."""

    def __init__(self, proxy: FaultProxy, way: Way, other: _Side | None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._proxy = proxy
        self._way = way
        self._other = other
        self._transport: asyncio.Transport | None = None
        # What is to be written to this socket, when its time has come.
        self._late: deque[bytes | None] = deque()
        self._early = b""
        self._dialling: asyncio.Task[None] | None = None
        self.closed: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        proxy = self._proxy
        proxy._sides.add(self)
        if self._other is not None:
            self._other._meet(self)
            return
        proxy.accepted += 1
        if proxy.is_refusing:
            self.abort()
            return
        if proxy.is_stalled:
            self.pause()
        self._dialling = self._loop.create_task(self._dial())

    def data_received(self, data: bytes) -> None:
        proxy = self._proxy
        if self._other is None or proxy.is_stalled:
            # The target is still being dialled, or a new connection read before it could be paused.
            self._early += data
            return
        if self._way in proxy.dropped:
            proxy.lost_bytes += len(data)
            return
        left = proxy.left.get(self._way)
        if left is not None:
            proxy.left[self._way] = left - len(data)
            data = data[: max(left, 0)]
        self._other._write_late(data)
        if left is not None and proxy.left[self._way] <= 0:
            self._other._write_late(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy._sides.discard(self)
        if self._other is not None and self._way not in self._proxy.dropped:
            self._other._write_late(None)
        if not self.closed.done():
            self.closed.set_result(None)

    def abort(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._flush_early()

    async def _dial(self) -> None:
        host, port = split_address(self._proxy.target)
        way = Way.DOWN if self._way is Way.UP else Way.UP
        try:
            await self._loop.create_connection(lambda: _Side(self._proxy, way, self), host, port)
        except OSError:
            self.abort()

    def _meet(self, other: _Side) -> None:
        self._other = other
        if self._transport is None or self._transport.is_closing():
            other.abort()
        else:
            self._flush_early()

    def _flush_early(self) -> None:
        """Pass on what came too early, if it may pass now."""
        if self._early and self._other is not None and not self._proxy.is_stalled:
            early, self._early = self._early, b""
            self.data_received(early)

    def _write_late(self, data: bytes | None) -> None:
        """Write after the proxy's delay, in order; None = end the connection."""
        self._late.append(data)
        if self._proxy.delay_s:
            self._loop.call_later(self._proxy.delay_s, self._write_next)
        elif len(self._late) == 1:
            self._write_next()

    def _write_next(self) -> None:
        data = self._late.popleft()
        if self._transport is None or self._transport.is_closing():
            return
        if data is None:
            # What was written before still leaves.
            self._transport.close()
        else:
            self._transport.write(data)
