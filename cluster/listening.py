"""Listening sockets: what "host:port" stands for.

One socket an address. "[::]:8090" is all interfaces, IPv6 and IPv4, whatever net.ipv6.bindv6only
says, and so is ":8090", which is IPv4 alone on a machine without IPv6.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

from cluster.addresses import join_address, split_address

# Level, option, value.
SocketOption = tuple[int, int, int]


async def listen(address: str, backlog: int, options: Iterable[SocketOption] = ()) -> socket.socket:
    """Listen on "host:port", port 0 = any free one. The caller closes the socket; it does not block.

    Args:
        options: set before it listens, so that accepted sockets inherit them from their first packet on.

    Raises:
        OSError: the address cannot be listened on; the text names it.
        ValueError: it is none.
    """
    host, port = _where(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return _open(found, backlog, options)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error


async def serve(
    make_protocol: Callable[[], asyncio.BaseProtocol], address: str, backlog: int
) -> tuple[asyncio.Server, str]:
    """Have the loop serve who comes to an address; return the server and "host:port" as it was bound.

    Raises:
        OSError: as listen(); ValueError likewise.
    """
    listening = await listen(address, backlog)
    bound = bound_address(listening)
    server = await asyncio.get_running_loop().create_server(make_protocol, sock=listening, backlog=backlog)
    return server, bound


def bound_address(listening: socket.socket) -> str:
    """The "host:port" of a socket."""
    name = listening.getsockname()
    return join_address(name[0], name[1])


def try_listening(address: str) -> None:
    """Listen for a moment, to find out whether listen() could; blocks.

    Raises:
        OSError: it could not; the text is the system's.
    """
    host, port = _where(address)
    # Two sockets with SO_REUSEADDR may share a bound port, not a listening one: so it does listen.
    _open(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), 1).close()


def _where(address: str) -> tuple[str, int]:
    host, port = split_address(address)
    return host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0"), port


def _open(found: Iterable[Any], backlog: int, options: Iterable[SocketOption] = ()) -> socket.socket:
    """Listen at one of what getaddrinfo() has found."""
    # A name may stand for both families ("localhost"): where our clients look by default.
    family, kind, protocol, _, name = min(found, key=lambda one: one[0] != socket.AF_INET)
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        # Connections of a stopped server that still fade away are no hindrance.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in options:
            listening.setsockopt(*option)
        listening.bind(name)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening
