"""What the connections of one listener share before and after their subscription.

A socket is in the timer wheel from its first moment to its last: as a
handshake, as a live Connection, as a farewell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from comet.connection import Connection, Transport
from comet.protocol import CloseReason, Refusal, Subscribe, Wire
from comet.timers import TimerWheel

log = logging.getLogger(__name__)

# Sockets beyond the subscribers' capacity, for handshakes and farewells in
# progress on all listeners: at most this many, and at most a quarter of the capacity.
MAX_SPARE_SOCKETS = 256
# The length of the window in which a subscriber's frames are counted.
INPUT_WINDOW_S = 1.0


class Admission(Protocol):
    """The way to the hub; see reception.py."""

    # Subscribers that this process can hold.
    capacity: int

    def subscribe(
        self, subscribe: Subscribe, transport: Transport, wire: Wire, greeting: bytes = b""
    ) -> Connection | Refusal:
        """Attach a connection and send it the greeting and the first heartbeat line, or say why not.

        Nothing is written when it is refused.
        """
        ...

    def turn_away(self, reason: CloseReason) -> None:
        """Count a socket that never came to ask for a subscription."""
        ...


class Door:
    """Limits, timers and the count of one listener's sockets."""

    def __init__(
        self,
        reception: Admission,
        wheel: TimerWheel,
        *,
        wires: tuple[Wire, ...],
        handshake_s: float,
        linger_s: float,
        max_frames_per_s: int,
        call_later: Callable[[float, Callable[[], None]], object],
        origins: tuple[str, ...] = (),
    ) -> None:
        """Make a door.

        Args:
            wires: by client version, shared by all connections, so that a message is framed once for them.
            handshake_s: from the connect to a complete subscription.
            linger_s: time for a peer to read our last words.
            max_frames_per_s: of one subscriber; one that sends more is not read from for a while.
            call_later: the loop's.
            origins: web origins that browsers may come from; empty = any (WebSocket).
        """
        self.reception = reception
        self.wires = wires
        self.origins = origins
        self.wheel = wheel
        self.now = wheel.now
        self.handshake_s = handshake_s
        self.max_frames_per_s = max_frames_per_s
        self.linger_s = linger_s
        self._call_later = call_later
        # Of all listeners together. Above it the process would run out of descriptors
        # for the store and its other listeners; libuv itself survives that by closing
        # what it accepts.
        self._max_open = reception.capacity + min(MAX_SPARE_SOCKETS, reception.capacity // 4 + 1)
        # Sockets of this listener, in whatever state.
        self._open_count = 0
        # New sockets are being cut; said once per episode.
        self._is_full = False
        # Set when the last socket has gone, if somebody waits for that.
        self._emptied: asyncio.Event | None = None

    def enter(self) -> bool:
        """Count a socket in; False when there are too many, and it must be cut."""
        self._open_count += 1
        open_now = len(self.wheel)
        if open_now >= self._max_open:
            if not self._is_full:
                self._is_full = True
                log.warning("too many sockets, new ones are cut: open=%d", open_now)
            return False
        if self._is_full and open_now < self._max_open * 7 // 8:
            self._is_full = False
            log.info("the flood of sockets is over: open=%d", open_now)
        return True

    def leave(self) -> None:
        """Count a socket out."""
        self._open_count -= 1
        if self._emptied is not None and not self._open_count:
            self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until no socket is left. Cancellation: safe."""
        self._emptied = asyncio.Event()
        if self._open_count:
            await self._emptied.wait()

    def see_out(self, transport: asyncio.Transport, last_words: bytes) -> None:
        """End a socket that has not become a connection, so that its peer can read why.

        Closing at once would reset the connection when input is unread, and
        take the words with it: so we half-close, and discard what comes.
        """
        if not last_words:
            transport.close()
            return
        farewell = Farewell(self, transport)
        transport.set_protocol(farewell)
        self.wheel.add(farewell, self.now() + self.linger_s)
        try:
            transport.write(last_words)
            transport.write_eof()
        except (RuntimeError, OSError):
            transport.abort()

    def stop_reading_for_a_while(self, transport: asyncio.Transport) -> None:
        """Let a peer that sends too fast wait; the kernel's small receive buffer bounds what piles up."""
        transport.pause_reading()
        self._call_later(INPUT_WINDOW_S, transport.resume_reading)


class Farewell(asyncio.Protocol):
    """A socket that was told its last words: discards input until the peer has ended."""

    __slots__ = ("_door", "_transport", "slot")

    def __init__(self, door: Door, transport: asyncio.Transport) -> None:
        self._door = door
        self._transport = transport
        self.slot = -1

    def next_deadline(self, now: float) -> float | None:
        """The peer has had its time."""
        self._transport.abort()
        return None

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.wheel.remove(self)
        self._door.leave()
