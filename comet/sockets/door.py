"""What the connections of one listener share before and after their subscription.

A socket has a deadline from its first moment to its last: as a handshake here,
as a live Connection and as a farewell in the timer wheel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cluster.episode import Episode
from comet.codec.protocol import CloseReason, Refusal, Subscribe
from comet.codec.wires import Wire
from comet.sockets.timers import TimerWheel
from comet.sockets.transport import SocketTransport, TransportUser
from comet.subscribers.connection import Connection, Transport

log = logging.getLogger(__name__)

# Sockets beyond the subscribers' capacity, for handshakes and farewells in
# progress on all listeners: at most this many, and at most a quarter of the capacity.
MAX_SPARE_SOCKETS = 256
# The length of the window in which a subscriber's frames are counted.
INPUT_WINDOW_S = 1.0

# What reads the first bytes of a socket; see codec/usual.py.
Reader = TypeVar("Reader", covariant=True)


class Doorkeeper(Protocol):
    """The way to the hub; see comet/reception.py."""

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


class Shaking(Protocol):
    """A socket that has not subscribed yet; see subscriber.py."""

    def give_up(self) -> None:
        """Its time is over: end without a word."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


class OpenSockets:
    """Counts the sockets of all listeners, in whatever state, against what the process can hold."""

    __slots__ = ("_flood", "_limit", "count")

    def __init__(self, capacity: int) -> None:
        """Count none yet.

        Args:
            capacity: subscribers that the process can hold; some more sockets may shake hands or say goodbye.
        """
        # Above it the process would run out of descriptors for the store and
        # its other listeners.
        self._limit = capacity + min(MAX_SPARE_SOCKETS, capacity // 4 + 1)
        self.count = 0
        # New sockets are being cut.
        self._flood = Episode(ends_at=self._limit * 7 // 8)

    def enter(self) -> bool:
        """Count a socket in; False when there are too many, and it must be cut."""
        self.count += 1
        if self.count > self._limit:
            if self._flood.starts():
                log.warning("too many sockets, new ones are cut: open=%d", self.count - 1)
            return False
        if self._flood.ends(self.count):
            log.info("the flood of sockets is over: open=%d", self.count - 1)
        return True


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What a listener grants its sockets."""

    # From the connect to a complete subscription.
    handshake_s: float
    # For a peer to read our last words.
    linger_s: float
    # Of one subscriber; one that sends more is not read from for a while.
    max_frames_per_s: int


class Door(Generic[Reader]):
    """Limits, timers and the count of one listener's sockets.

    Handshakes stand in a dict by arrival. All have the same time, so their
    order is that of their deadlines, and the timer wheel needs to look only at
    the first: a subscription costs two dict operations instead of two turns
    through the wheel (2.5 us).
    """

    def __init__(
        self,
        reception: Doorkeeper,
        wheel: TimerWheel,
        sockets: OpenSockets,
        wires: tuple[Wire, ...],
        reader: Reader,
        limits: DoorLimits,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Make a door.

        Args:
            sockets: shared by all doors of the process.
            wires: by client version, shared by all connections, so that a message is framed once for them.
            reader: shared by all sockets, because it remembers what usual ones begin with.
            call_later: the loop's.
        """
        self.reception = reception
        self.wires = wires
        self.reader = reader
        self.now = wheel.now
        self.max_frames_per_s = limits.max_frames_per_s
        self.linger_s = limits.linger_s
        self._wheel = wheel
        self._sockets = sockets
        self._handshake_s = limits.handshake_s
        self._call_later = call_later
        # Sockets that have not subscribed yet, and the loop time by which they
        # must have, however they drip; the earliest first.
        self._shaking: dict[Shaking, float] = {}
        # Of the door itself in the timer wheel, while somebody shakes hands.
        self.slot = -1
        # Sockets of this listener, in whatever state.
        self._open_count = 0
        # Set when the last socket has gone, if somebody waits for that.
        self._emptied: asyncio.Event | None = None

    def enter(self, socket: Shaking) -> bool:
        """Count a socket in and begin its time to subscribe; False when there are too many: cut it."""
        self._open_count += 1
        if not self._sockets.enter():
            return False
        deadline = self._shaking[socket] = self.now() + self._handshake_s
        if self.slot < 0:
            self._wheel.add(self, deadline)
        return True

    def shaken(self, socket: Shaking) -> None:
        """It has said what it wants, or has gone; may be called again."""
        self._shaking.pop(socket, None)

    def hurry(self, deadline: float) -> None:
        """Give handshakes until a loop time at most: the node is draining."""
        self._shaking = {socket: min(due, deadline) for socket, due in self._shaking.items()}
        if self._shaking:
            self._wheel.move(self, min(self._shaking.values()))

    def leave(self) -> None:
        """Count a socket out."""
        self._open_count -= 1
        self._sockets.count -= 1
        if self._emptied is not None and not self._open_count:
            self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until no socket is left. Cancellation: safe."""
        self._emptied = asyncio.Event()
        if self._open_count:
            await self._emptied.wait()

    def see_out(self, transport: SocketTransport, last_words: bytes) -> None:
        """End a socket that has not become a connection, so that its peer can read why.

        Closing at once would reset the connection when input is unread, and
        take the words with it: so we half-close, and discard what comes.
        """
        if not last_words:
            transport.close()
            return
        farewell = Farewell(self, transport)
        transport.hand_to(farewell)
        self._wheel.add(farewell, self.now() + self.linger_s)
        transport.write(last_words)
        transport.write_eof()

    def went(self, farewell: Farewell) -> None:
        """A socket that was seen out has ended."""
        self._wheel.remove(farewell)
        self.leave()

    # -- an item of the timer wheel

    def next_deadline(self, now: float) -> float | None:
        """End the handshakes whose time is over."""
        late = []
        for socket, deadline in self._shaking.items():
            if deadline > now:
                break
            late.append(socket)
        for socket in late:
            del self._shaking[socket]
            self.reception.turn_away(CloseReason.HANDSHAKE_TIMEOUT)
            socket.give_up()
        return next(iter(self._shaking.values()), None)

    def abort(self) -> None:
        """End all handshakes at once."""
        for socket in list(self._shaking):
            socket.abort()

    def stop_reading_for_a_while(self, transport: SocketTransport) -> None:
        """Let a peer that sends too fast wait; the kernel's small receive buffer bounds what piles up."""
        transport.pause_reading()
        self._call_later(INPUT_WINDOW_S, transport.resume_reading)


class Farewell(TransportUser):
    """A socket that was told its last words: discards input until the peer has ended."""

    __slots__ = ("_door", "_transport", "slot")

    def __init__(self, door: Door[object], transport: SocketTransport) -> None:
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

    def connection_lost(self, unread: int) -> None:
        self._door.went(self)
