"""One subscriber's connection after it has subscribed.

Decides what is written, when the subscriber is too slow and when it has been
silent for too long. Parsing its bytes is the business of sockets/tcp.py
and websocket.py, which call heartbeat(), acknowledge() and lost().
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from cluster.model import Mid
from comet.codec.protocol import HEARTBEAT_GRACE_S, ClientVersion, CloseReason
from comet.codec.wires import Wire

if TYPE_CHECKING:
    from comet.subscribers.catchup import CatchUp
    from comet.subscribers.channel import Channel

# Of answers to a subscriber that does not read: a thousand heartbeats.
MAX_UNREAD_ANSWER_BYTES = 4096


class Transport(Protocol):
    """The part of SocketTransport (sockets/transport.py) that a connection uses. Nothing raises."""

    # Bytes that wait in this process for the subscriber to read.
    unread_bytes: int

    @property
    def peer(self) -> str:
        """host:port of the subscriber; empty when it has gone."""
        ...

    def write(self, data: bytes) -> bool:
        """Send; False when nobody will read it."""
        ...

    def write_eof(self) -> None:
        """Nothing follows what was written."""
        ...

    def close(self) -> None:
        """End when everything is written."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


class ConnectionContext(Protocol):
    """What all connections of a node share."""

    # Unread bytes above which a live connection is closed as a slow consumer.
    unread_limit_bytes: int
    # How long a closed connection may take to say goodbye before it is aborted.
    linger_s: float

    def on_close(self, connection: Connection, reason: CloseReason) -> None:
        """The connection has stopped being live: take it out of its channel, count the reason."""
        ...

    def on_drop(self, reason: CloseReason, count: int = 1) -> None:
        """Messages found no room, or had not left this process when the connection ended."""
        ...

    def on_acknowledge(self, connection: Connection, mid: Mid) -> None:
        """The subscriber has processed everything up to mid."""
        ...

    def linger(self, connection: Connection) -> None:
        """Call connection.next_deadline() after linger_s, unless forget() comes first."""
        ...

    def forget(self, connection: Connection) -> None:
        """No deadline matters any more: the transport has ended."""
        ...


class Connection(msgspec.Struct, eq=False, gc=False):
    """A live subscriber; hub.py attaches it to a channel.

    15,000 of them stand in one process: a field is 120 KB. A struct, because
    it is made in a third of the time of a class with slots. The garbage
    collector does not follow it: it would walk through all of them again and
    again, and what ends a connection takes it out of every cycle (lost(),
    Channel.remove(), the transport's own end).
    """

    _context: ConnectionContext
    _transport: Transport
    wire: Wire
    device: str
    _heartbeat_s: int
    # Loop time of the last heartbeat, at first of the subscription; re-armed lazily by next_deadline().
    _heard_at: float
    # Unix seconds.
    since: int
    # The channel it is attached to; set by channel.py, None before and after.
    channel: Channel | None = None
    # Highest mid that was sent here, or the mid it resumed from. Raised by
    # offer() and catchup.py only.
    sent_mid: Mid = Mid(0)
    # The mid it resumed from: what it says it has, not what it was sent here.
    resumed_mid: Mid = Mid(0)
    # Present while stored messages are being sent: live ones are held there.
    catch_up: CatchUp | None = None
    # Where the timer wheel keeps it (sockets/timers.py), -1 = nowhere.
    slot: int = -1
    closed_for: CloseReason | None = None
    # Loop time at which its token expires, None = never.
    _expires_at: float | None = None
    # The transport's buffer is above its high-water mark (pause()).
    _is_paused: bool = False
    # Called once when the buffer has run low or the connection has ended.
    _on_room: Callable[[], None] | None = None
    # Bytes of answers since the buffer has passed its high-water mark.
    _unread_answers: int = 0

    # -- what the node does to it

    def offer(self, mid: Mid, frame: bytes) -> bool:
        """Hand one message's bytes over without waiting.

        A message that was sent here already is skipped; one more than the
        unread limit makes it a slow consumer. One message always fits.

        Returns:
            Whether the connection lives on with this message.
        """
        if mid <= self.sent_mid:
            return True
        transport = self._transport
        if transport.unread_bytes > self._context.unread_limit_bytes:
            self._context.on_drop(CloseReason.SLOW_CONSUMER)
            self.close(CloseReason.SLOW_CONSUMER)
            return False
        if not transport.write(frame):
            self._end(CloseReason.PEER_LOST)
            return False
        self.sent_mid = mid
        return True

    def write(self, data: bytes) -> bool:
        """Write bytes; False when the transport is gone (lost() follows or has been called)."""
        if self._transport.write(data):
            return True
        self._end(CloseReason.PEER_LOST)
        return False

    def has_ended(self) -> bool:
        """Whether it was closed or lost; nothing is delivered to it any more."""
        return self.closed_for is not None

    def close(self, reason: CloseReason) -> None:
        """Say why and end. Does nothing when it has ended already.

        Bytes that the peer has not read delay a polite end; a slow consumer is
        aborted, because close() on a reader that has stopped ends nothing.
        """
        if self.has_ended():
            return
        self._end(reason)
        if reason is CloseReason.SLOW_CONSUMER or self._is_paused:
            self._transport.abort()
            return
        farewell = self.wire.farewell(reason)
        if not farewell:
            self._transport.close()
            if self.unread_bytes:
                # They are flushed first, for ever if the peer does not read.
                self._context.linger(self)
            return
        self.say_goodbye(farewell)

    def say_goodbye(self, farewell: bytes) -> None:
        """Send last words and wait a little for the peer to end.

        Closing at once could reset the connection (unread input) and take the
        words with it.
        """
        if not self._transport.write(farewell):
            self._transport.abort()
            return
        if self.wire.transport == "tcp":
            self._transport.write_eof()
        self._context.linger(self)

    def expire_token_at(self, loop_time: float) -> None:
        """End with BAD_TOKEN at that time; re-arms the deadline."""
        self._expires_at = loop_time

    def first_deadline(self) -> float:
        """Loop time at which something may have to happen."""
        due = self._heard_at + self._heartbeat_s + HEARTBEAT_GRACE_S
        return due if self._expires_at is None else min(due, self._expires_at)

    def next_deadline(self, now: float) -> float | None:
        """Do what is due; the next loop time to look again, None = never."""
        if self.has_ended():
            self._transport.abort()
            return None
        if self._expires_at is not None and self._expires_at <= now:
            self.close(CloseReason.BAD_TOKEN)
        elif self._heard_at + self._heartbeat_s + HEARTBEAT_GRACE_S <= now:
            self.close(CloseReason.HEARTBEAT_MISSED)
        if self.has_ended():
            return now + self._context.linger_s
        return self.first_deadline()

    def abort(self) -> None:
        """End the transport at once, without words; lost() follows."""
        self._transport.abort()

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait in this process for the subscriber to read."""
        return self._transport.unread_bytes

    @property
    def peer(self) -> str:
        """host:port of the subscriber; empty when it has gone."""
        return self._transport.peer

    def when_room(self, call: Callable[[], None]) -> None:
        """Call once when the buffer has run low; at once when it is low or the connection has ended."""
        if not self._is_paused or self.has_ended():
            call()
        else:
            self._on_room = call

    # -- what its transport reports

    def heartbeat(self, now: float, count: int = 1) -> None:
        """The subscriber sent heartbeats; each is answered."""
        self._heard_at = now
        self.answer(self.wire.heartbeat * count)

    def answer(self, data: bytes) -> None:
        """Reply to what the subscriber sent. One that goes on sending and does not read is a slow consumer.

        Only the answers are counted: it may well send a heartbeat while a large message is under way.
        """
        if self._is_paused:
            self._unread_answers += len(data)
            if self._unread_answers > MAX_UNREAD_ANSWER_BYTES:
                self.close(CloseReason.SLOW_CONSUMER)
                return
        self.write(data)

    def acknowledge(self, mid: Mid) -> None:
        """The subscriber sent an acknowledgement."""
        if self.wire.version < ClientVersion.TWO:
            self.close(CloseReason.PROTOCOL_ERROR)
            return
        if mid > self.sent_mid:
            # While it catches up it may repeat an older acknowledgement of its
            # own; losing that one costs a repeat at the most.
            if self.catch_up is None:
                self.close(CloseReason.PROTOCOL_ERROR)
            return
        self._context.on_acknowledge(self, mid)

    def lost(self, unread: int = 0) -> None:
        """The transport has ended; nothing can be written any more.

        Args:
            unread: writes that were still in this process: messages that were counted as delivered, but
                for short answers among them.
        """
        self._end(CloseReason.PEER_LOST)
        if unread:
            assert self.closed_for is not None
            self._context.on_drop(self.closed_for, unread)
        self._context.forget(self)

    def pause(self) -> None:
        """The transport's buffer has passed its high-water mark."""
        self._is_paused = True

    def resume(self) -> None:
        """The transport's buffer has run low."""
        self._is_paused = False
        self._unread_answers = 0
        self._call_on_room()

    def _end(self, reason: CloseReason) -> None:
        if self.closed_for is None:
            self.closed_for = reason
            self._context.on_close(self, reason)
        self._call_on_room()

    def _call_on_room(self) -> None:
        call, self._on_room = self._on_room, None
        if call is not None:
            call()
