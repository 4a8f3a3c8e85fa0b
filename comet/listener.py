"""The listening sockets of a comet node."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from comet.config import CometConfig
from comet.door import Admission, Door, DoorLimits, OpenSockets
from comet.tcp import TcpDoor, TcpSubscriber
from comet.timers import TimerWheel
from comet.websocket import WebSocketDoor, WebSocketSubscriber

# With 100, a burst of 5,000 connects takes 2.8 s instead of 0.2 s. The kernel
# caps it at net.core.somaxconn.
BACKLOG = 4096
# Subscribers send a few bytes at a time. The small buffer bounds what a peer
# that is not being read from leaves in the kernel, and how much of its input is
# read in one turn of the loop.
RECEIVE_BUFFER_BYTES = 8192


class Listener:
    """A listening socket and the sockets that came through it."""

    def __init__(self, server: asyncio.Server, door: Door, wheel: TimerWheel) -> None:
        self._server = server
        self._door = door
        self._wheel = wheel
        name = server.sockets[0].getsockname()
        host, port = name[0], name[1]
        # The bound "host:port".
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def stop_accepting(self) -> None:
        """Close the listening socket; subscribers stay, and handshakes get linger_s at most.

        Browsers open sockets ahead and say nothing on them: a drain must not wait for those.
        """
        self._server.close()
        self._door.hurry(self._door.now() + self._door.linger_s)

    async def wait_closed(self) -> None:
        """Wait until every socket that came in here has ended. Cancellation: safe."""
        await self._door.wait_empty()

    def abort(self) -> None:
        """Stop accepting, and end all that the timer wheel keeps, other listeners' sockets too, at once."""
        self._server.close()
        for item in self._wheel.items():
            item.abort()


async def start_tcp(
    config: CometConfig, reception: Admission, wheel: TimerWheel, sockets: OpenSockets
) -> Listener:
    """Listen for raw TCP subscribers.

    Raises:
        OSError: the address cannot be bound.
    """
    limits = DoorLimits(config.tcp_handshake_s, config.linger_s, config.max_frames_per_s)
    call_later = asyncio.get_running_loop().call_later
    door = TcpDoor(reception, wheel, sockets, limits, call_later)
    listening = await _bind(config.tcp_bind, config.send_buffer_bytes)
    return Listener(await _serve(listening, partial(TcpSubscriber, door)), door, wheel)


async def start_websocket(
    config: CometConfig, reception: Admission, wheel: TimerWheel, sockets: OpenSockets
) -> Listener:
    """Listen for WebSocket subscribers.

    Raises:
        OSError: the address cannot be bound.
    """
    limits = DoorLimits(config.ws_handshake_s, config.linger_s, config.max_frames_per_s)
    call_later = asyncio.get_running_loop().call_later
    door = WebSocketDoor(reception, wheel, sockets, limits, call_later, config.ws_origins)
    listening = await _bind(config.ws_bind, config.send_buffer_bytes)
    return Listener(await _serve(listening, partial(WebSocketSubscriber, door)), door, wheel)


async def _bind(address: str, send_buffer_bytes: int) -> socket.socket:
    """Bind the first address that "host:port" stands for; an empty host is all interfaces."""
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, name = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit these, and only here do they bound the window
        # from the first packet on. Without it the kernel takes 3.9 MB for one
        # reader that has stopped; with 8 KB it takes 82 KB.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        # Saves a small message from waiting for the acknowledgement of the one before.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(name)
    except OSError:
        listening.close()
        raise
    return listening


async def _serve(listening: socket.socket, factory: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(factory, sock=listening, backlog=BACKLOG)
    except OSError:
        listening.close()
        raise
