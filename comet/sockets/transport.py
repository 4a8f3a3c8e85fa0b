"""A subscriber's socket: bytes in and out without waiting, and what has not gone out yet.

Like asyncio's transports where subscribers need it. What differs: write() tells
whether anybody can still be reached, nothing raises, and nothing is called back
from within a call, but pause_writing().
"""

from __future__ import annotations

import select
import socket
from collections import deque
from itertools import islice
from socket import SocketType

from cluster.addresses import join_address
from comet.sockets.poller import READABLE, WRITABLE, Poller

# The user is told to pause above HIGH_WATER unread bytes, and to go on at LOW_WATER.
HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024
# Of one read; subscribers send some tens of bytes.
READ_BYTES = 4096
# Pieces handed to the kernel in one call; it takes 1,024 at most.
MAX_PIECES = 64

# The socket itself stays blocking: saves a system call per subscriber.
_AT_ONCE = socket.MSG_DONTWAIT
_GONE = select.EPOLLHUP | select.EPOLLERR


class TransportUser:
    """Who reads and writes through a transport; this one does nothing with what it is told."""

    __slots__ = ()

    def connection_made(self, transport: SocketTransport) -> None:
        """The first call."""

    def data_received(self, data: bytes) -> None:
        """The peer has sent something."""

    def eof_received(self) -> None:
        """The peer sends no more; the transport closes after this."""

    def pause_writing(self) -> None:
        """More than HIGH_WATER bytes wait for the peer to read."""

    def resume_writing(self) -> None:
        """They are down to LOW_WATER."""

    def connection_lost(self, unread: int) -> None:
        """The last call.

        Args:
            unread: writes that the kernel had not taken, the last one perhaps in part.
        """


class SocketTransport:
    """The bytes of one socket, which it owns.

    A write goes to the kernel at once. Another one in the same millisecond waits
    for the next turn of the loop, so that a burst to one subscriber takes few system calls.
    """

    __slots__ = (
        "_backlog",
        "_is_closing",
        "_is_ending",
        "_is_paused",
        "_is_write_closed",
        "_mask",
        "_poller",
        "_socket",
        "_user",
        "_wrote_at",
        "unread_bytes",
    )

    def __init__(self, poller: Poller, sock: SocketType, user: TransportUser) -> None:
        """Take a connected socket over; begin() follows."""
        self._poller = poller
        self._socket = sock
        self._user = user
        # What the poller tells; without READABLE nothing is read.
        self._mask = READABLE
        # What the kernel has not taken yet, in order; None when there is nothing.
        self._backlog: deque[bytes | memoryview] | None = None
        # Bytes in the backlog.
        self.unread_bytes = 0
        # When a write last went out at once.
        self._wrote_at = 0.0
        # The user was told to pause.
        self._is_paused = False
        # The peer is told that nothing follows the backlog (write_eof()).
        self._is_write_closed = False
        # It ends after the backlog (close()).
        self._is_closing = False
        # Nothing happens any more but the last call.
        self._is_ending = False

    def begin(self) -> None:
        """Read, and tell the user; one that fails at this costs its own socket.

        Raises:
            OSError: the kernel has no room to watch it; the socket is the caller's again.
        """
        self._poller.watch(self._socket.fileno(), READABLE, self)
        try:
            self._user.connection_made(self)
        except Exception as error:
            self._poller.report(error)
            self.abort()

    def hand_to(self, user: TransportUser) -> None:
        """Somebody else is told what happens from now on."""
        self._user = user

    @property
    def peer(self) -> str:
        """host:port of the other side; empty when it has gone."""
        try:
            name = self._socket.getpeername()
        except OSError:
            return ""
        return join_address(name[0], name[1])

    @property
    def is_closing(self) -> bool:
        """Whether it was told to end, or has ended."""
        return self._is_closing

    # -- out

    def write(self, data: bytes) -> bool:
        """Send bytes, in order; False when nobody will read them any more.

        When it is found here that the peer has gone, connection_lost() follows in the next turn.
        """
        if self._is_write_closed:
            return False
        if self._backlog is not None:
            self._backlog.append(data)
            self._add_unread(len(data))
            return True
        now = self._poller.now()
        if now == self._wrote_at:
            self._backlog = deque((data,))
            self._poller.next_turn(self._take_turn)
            self._add_unread(len(data))
            return True
        self._wrote_at = now
        try:
            sent = self._socket.send(data, _AT_ONCE)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return False
        if sent < len(data):
            self._backlog = deque((memoryview(data)[sent:],))
            self._ask_for(self._mask | WRITABLE)
            self._add_unread(len(data) - sent)
        return True

    def write_eof(self) -> None:
        """Tell the peer that nothing follows what was written; it may still send."""
        if self._is_write_closed:
            return
        self._is_write_closed = True
        if self._backlog is None:
            self._shut_down()

    def close(self) -> None:
        """End after what was written; nothing is read any more.

        A peer that does not read keeps it waiting for ever: abort() then.
        """
        self._is_closing = self._is_write_closed = True
        if self._backlog is None:
            self.abort()
        else:
            self._ask_for(self._mask & ~READABLE)

    def abort(self) -> None:
        """End now, whatever is unread."""
        if self._is_ending:
            return
        self._is_ending = self._is_closing = self._is_write_closed = True
        self.unread_bytes = 0
        self._mask = 0
        self._poller.unwatch(self._socket.fileno())
        self._poller.next_turn(self._take_turn)

    def _add_unread(self, size: int) -> None:
        self.unread_bytes += size
        if self.unread_bytes > HIGH_WATER and not self._is_paused:
            self._is_paused = True
            self._user.pause_writing()

    def _flush(self) -> None:
        """Hand the backlog to the kernel, as far as it takes it."""
        backlog = self._backlog
        while backlog and not self._is_ending:
            try:
                sent = self._socket.sendmsg(list(islice(backlog, MAX_PIECES)), (), _AT_ONCE)
            except BlockingIOError:
                self._ask_for(self._mask | WRITABLE)
                break
            except OSError:
                self.abort()
                return
            self.unread_bytes -= sent
            _drop(backlog, sent)
        else:
            self._backlog = None
            self._ask_for(self._mask & ~WRITABLE)
            if self._is_closing:
                self.abort()
            elif self._is_write_closed:
                self._shut_down()
        if self._is_paused and self.unread_bytes <= LOW_WATER and not self._is_ending:
            self._is_paused = False
            self._user.resume_writing()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    # -- in

    def pause_reading(self) -> None:
        """Leave what comes to the kernel."""
        self._ask_for(self._mask & ~READABLE)

    def resume_reading(self) -> None:
        """Read again, unless it is closing."""
        if not self._is_closing:
            self._ask_for(self._mask | READABLE)

    def _ask_for(self, mask: int) -> None:
        if mask != self._mask and not self._is_ending:
            self._mask = mask
            self._poller.change(self._socket.fileno(), mask)

    # -- what the poller tells

    def on_ready(self, mask: int) -> None:
        """Read once, or write what waits."""
        if mask & WRITABLE:
            self._flush()
        if not self._mask & READABLE:
            if mask & _GONE:
                self.abort()
            return
        if mask == WRITABLE:
            return
        try:
            data = self._socket.recv(READ_BYTES, _AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if data:
            self._user.data_received(data)
            return
        self._user.eof_received()
        self.close()

    def _take_turn(self) -> None:
        """Write what has waited for this turn, or tell the user that it is over."""
        if not self._is_ending:
            self._flush()
        elif self._socket.fileno() >= 0:
            self._socket.close()
            user = self._user
            unread = 0 if self._backlog is None else len(self._backlog)
            # Breaks the circle, which the garbage collector would not see: connections are not followed.
            del self._user
            user.connection_lost(unread)


def _drop(backlog: deque[bytes | memoryview], size: int) -> None:
    """Take the first bytes out."""
    # With <=, so that an empty piece goes, too: it would be offered to the kernel for ever.
    while backlog and len(backlog[0]) <= size:
        size -= len(backlog.popleft())
    if size:
        backlog[0] = memoryview(backlog[0])[size:]
