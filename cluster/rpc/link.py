"""One TCP connection between two nodes: frames in, frames out, is the other side still there.

Both sides say at least something every ping interval, so silence means that
the peer or the network is gone, also when no packet ever says so. Knows
nothing of calls.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable
from typing import cast

import msgspec

from cluster.addresses import join_address
from cluster.errors import EnckeError, RemoteProtocolError, UnavailableError
from cluster.rpc.config import RpcConfig
from cluster.rpc.frames import LENGTH, PING, FrameReader
from cluster.rpc.handshake import MAX_HANDSHAKE_BYTES
from cluster.rpc.metrics import Traffic


class Link(asyncio.Protocol):
    """A connection. Its owner sets on_frames and on_lost before it is made."""

    def __init__(self, config: RpcConfig, traffic: Traffic, *, is_server: bool) -> None:
        """Prepare a connection.

        Args:
            is_server: stop reading from a peer that does not read our answers.
                Only one side may do so, or both could wait for each other.
        """
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._sent, self._received = traffic.sent, traffic.received
        self._is_server = is_server
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(MAX_HANDSHAKE_BYTES)
        # Written in one piece at the end of this turn of the loop: a write for
        # each frame would more than halve the calls per second (bench/rpc.py).
        self._parts: list[bytes] = []
        self._ping_timer: asyncio.TimerHandle | None = None
        self._max_silent_ticks = math.ceil(config.silence_s / config.ping_interval_s)
        # Ticks in a row without a sign of life. Ticks are counted, not time:
        # our own process may have been stopped meanwhile.
        self._silent_ticks = 0
        # Since the last tick:
        self._has_heard = False
        self._has_sent = False
        self._unread_bytes = 0
        self._lost_reason: Exception | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.peer = "?"
        # Whether frames can be sent. Read for every answer, so a plain attribute; changed only here.
        self.is_open = False
        # The owner's: called with the bodies that one read completed; an
        # EnckeError out of it ends the connection.
        self.on_frames: Callable[[list[bytes]], None]
        # Called once, when the connection has ended, with the reason.
        self.on_lost: Callable[[Exception], None]
        # Called when the connection has been made; may abort it.
        self.on_made: Callable[[], None] = lambda: None

    def accept_large_frames(self) -> None:
        """The peer is known now."""
        self._reader.limit_bytes = self._config.max_frame_bytes

    def send(self, head: bytes, payload: bytes) -> None:
        """Send a frame at the end of this turn of the loop."""
        parts = self._parts
        if not parts:
            self._loop.call_soon(self.flush)
        parts += (head, payload)

    def send_body(self, body: bytes) -> None:
        """Send a frame of the handshake."""
        self.send(LENGTH.pack(len(body)), body)

    def flush(self) -> None:
        """Write what has been sent in this turn."""
        parts = self._parts
        if not parts:
            return
        self._parts = []
        if self.is_open:
            assert self._transport is not None
            data = b"".join(parts)
            self._sent.value += len(data)
            self._transport.write(data)
            self._has_sent = True

    def close(self, reason: Exception) -> None:
        """Close after what has been sent. A peer that does not read is cut when its silence is noticed."""
        self.flush()
        self.is_open = False
        self._lost_reason = self._lost_reason or reason
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: Exception) -> None:
        """End it now."""
        self._parts.clear()
        self.is_open = False
        self._lost_reason = self._lost_reason or reason
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the connection has ended. Cancelling is safe."""
        await asyncio.shield(self._closed)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.is_open = True
        # uvloop's transports only look like one.
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        if name:
            self.peer = join_address(name[0], name[1])
        self._transport.set_write_buffer_limits(high=self._config.max_unread_bytes)
        self._ping_timer = self._loop.call_later(self._config.ping_interval_s, self._tick)
        self.on_made()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._has_heard = True
        self._received.value += len(data)
        try:
            frames = self._reader.feed(data)
        except RemoteProtocolError as error:
            self.abort(error)
            return
        if frames:
            self.deliver(frames)

    def deliver(self, frames: list[bytes]) -> None:
        """Give frames to the owner; what breaks the protocol ends the connection."""
        try:
            self.on_frames(frames)
        except EnckeError as error:
            self.abort(error)
        except (struct.error, msgspec.DecodeError) as error:
            self.abort(RemoteProtocolError(f"not a frame: {error}"))

    def pause_writing(self) -> None:
        """Called by the loop: the peer does not read our answers."""
        if self._is_server and self.is_open:
            assert self._transport is not None
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._is_server and self.is_open:
            assert self._transport is not None
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._parts.clear()
        self.is_open = False
        if not self._closed.done():
            self._closed.set_result(None)
        self.on_lost(self._lost_reason or exc or UnavailableError("closed by the peer"))

    # -- signs of life

    def _tick(self) -> None:
        assert self._transport is not None
        unread_bytes = self._transport.get_write_buffer_size()
        # While we do not read (pause_writing), that it reads is a sign of life.
        if self._has_heard or unread_bytes < self._unread_bytes:
            self._silent_ticks = 0
        else:
            self._silent_ticks += 1
        self._unread_bytes = unread_bytes
        self._has_heard = False
        if self._silent_ticks >= self._max_silent_ticks:
            self.abort(UnavailableError(f"nothing heard for {self._config.silence_s} s"))
            return
        if not self._has_sent and self.is_open:
            self._transport.write(PING)
        self._has_sent = False
        self._ping_timer = self._loop.call_later(self._config.ping_interval_s, self._tick)
