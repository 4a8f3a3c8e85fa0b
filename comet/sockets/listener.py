"""The listening sockets of a comet node."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from socket import SocketType

from cluster.listening import bound_address, listen
from comet.codec.usual import HandshakeReader, SubscribeReader
from comet.codec.wires import tcp_wires, websocket_wires
from comet.config import CometConfig
from comet.sockets.door import Door, Doorkeeper, DoorLimits, OpenSockets
from comet.sockets.poller import READABLE, Poller
from comet.sockets.tcp import TcpSubscriber
from comet.sockets.timers import TimerWheel
from comet.sockets.transport import SocketTransport, TransportUser
from comet.sockets.websocket import WebSocketSubscriber

log = logging.getLogger(__name__)

# With 100, a burst of 5,000 connects takes 2.8 s instead of 0.2 s. The kernel
# caps it at net.core.somaxconn.
BACKLOG = 4096
# Subscribers send a few bytes at a time. The small buffer bounds what a peer
# that is not being read from leaves in the kernel, and how much of its input is
# read in one turn of the loop.
RECEIVE_BUFFER_BYTES = 8192
# Accepted in one turn of the loop; others have theirs between.
MAX_ACCEPTS = 64
# How long nothing is accepted when the process or the machine has no room for another socket.
REST_S = 1.0
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """A listening socket and the sockets that came through it."""

    def __init__(
        self,
        poller: Poller,
        listening: socket.socket,
        make_user: Callable[[], TransportUser],
        door: Door[object],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Accept from now on.

        Args:
            listening: is the listener's from now on.
            call_later: the loop's.
        """
        self._poller = poller
        self._listening = listening
        self._make_user = make_user
        self._door = door
        self._call_later = call_later
        # Between a fault and the next turn that goes well; said when it changes.
        self._is_resting = False
        # The bound "host:port".
        self.address = bound_address(listening)
        poller.watch(listening.fileno(), READABLE, self)

    def stop_accepting(self) -> None:
        """Close the listening socket; subscribers stay, and handshakes get linger_s at most.

        Browsers open sockets ahead and say nothing on them: a drain must not wait for those.
        """
        self.abort()
        self._door.hurry(self._door.now() + self._door.linger_s)

    async def wait_closed(self) -> None:
        """Wait until every socket that came in here has ended. Cancellation: safe."""
        await self._door.wait_empty()

    # -- what the poller tells

    def abort(self) -> None:
        """Close the listening socket; whoever came through it stays."""
        if self._listening.fileno() >= 0:
            self._poller.unwatch(self._listening.fileno())
            self._listening.close()

    def on_ready(self, mask: int) -> None:
        """Accept who has come."""
        try:
            self._accept_some()
        except Exception as error:
            # No memory, or a bug: it keeps others waiting, and costs nobody who is here.
            self._rest(error)

    def _accept_some(self) -> None:
        # socket.accept() makes its socket in Python: 3 us and 40 bytes more (bench/connections.py).
        accept = self._listening._accept  # type: ignore[attr-defined]
        # A property in Python; asked once.
        family = self._listening.family
        for _ in range(MAX_ACCEPTS):
            try:
                descriptor, _ = accept()
            except BlockingIOError:
                if self._is_resting:
                    self._is_resting = False
                    log.info("accepting sockets again: address=%s", self.address)
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest(error)
                # Anything else is about one peer, which has gone already. The next turn comes by itself.
                return
            self._take_in(family, descriptor)

    def _take_in(self, family: int, descriptor: int) -> None:
        try:
            accepted = SocketType(family, socket.SOCK_STREAM, self._listening.proto, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            SocketTransport(self._poller, accepted, self._make_user()).begin()
        except Exception:
            # No memory for another watch, or a bug: it costs this one, not those who wait behind it.
            log.exception("new socket not served: address=%s", self.address)
            accepted.close()

    def _rest(self, error: Exception) -> None:
        """Accept nothing for a while: those who wait would be told of again and again."""
        if not self._is_resting:
            self._is_resting = True
            trace = None if isinstance(error, OSError | MemoryError) else error
            log.warning("accepting no sockets: address=%s reason=%r", self.address, error, exc_info=trace)
        self._poller.change(self._listening.fileno(), 0)
        self._call_later(REST_S, self._go_on)

    def _go_on(self) -> None:
        if self._listening.fileno() >= 0:
            self._poller.change(self._listening.fileno(), READABLE)


async def start_tcp(
    config: CometConfig, reception: Doorkeeper, wheel: TimerWheel, sockets: OpenSockets, poller: Poller
) -> Listener:
    """Listen for raw TCP subscribers.

    Raises:
        OSError: the address cannot be bound.
    """
    limits = DoorLimits(config.tcp_handshake_s, config.linger_s, config.max_frames_per_s)
    call_later = asyncio.get_running_loop().call_later
    door = Door(reception, wheel, sockets, tcp_wires(), SubscribeReader(), limits, call_later)
    listening = await _listen(config.tcp_bind, config.send_buffer_bytes)
    return Listener(poller, listening, partial(TcpSubscriber, door), door, call_later)


async def start_websocket(
    config: CometConfig, reception: Doorkeeper, wheel: TimerWheel, sockets: OpenSockets, poller: Poller
) -> Listener:
    """Listen for WebSocket subscribers.

    Raises:
        OSError: the address cannot be bound.
    """
    limits = DoorLimits(config.ws_handshake_s, config.linger_s, config.max_frames_per_s)
    call_later = asyncio.get_running_loop().call_later
    reader = HandshakeReader(config.ws_origins)
    door = Door(reception, wheel, sockets, websocket_wires(), reader, limits, call_later)
    listening = await _listen(config.ws_bind, config.send_buffer_bytes)
    return Listener(poller, listening, partial(WebSocketSubscriber, door), door, call_later)


def _listen(address: str, send_buffer_bytes: int) -> Awaitable[socket.socket]:
    # Accepted sockets inherit these, and only here do they bound the window
    # from the first packet on. Without it the kernel takes 3.9 MB for one
    # reader that has stopped; with 8 KB it takes 82 KB.
    options = [
        (socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
        # Saves a small message from waiting for the acknowledgement of the one before.
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ]
    return listen(address, BACKLOG, options)
