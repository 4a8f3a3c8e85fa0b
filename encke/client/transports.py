"""Carries the words of the subscriber protocol over WebSocket or TCP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from encke.client.errors import Ended, ServerError
from encke.client.words import Subscription

# A line that is no message is a heartbeat answer, a refusal or a farewell.
_MAX_LINE_BYTES = 4096
# A host name or an IPv4 address, or an IPv6 address in brackets. Nothing that
# could become another part of a URL.
_ADDRESS = re.compile(r"([\w.-]{1,253}|\[[0-9A-Fa-f:.%]{2,64}\]):([0-9]{1,5})", re.ASCII)
# A server that does not say goodbye in return is cut.
_CLOSE_TIMEOUT_S = 1.0


class Transport(Protocol):
    """One connection to a comet node. Used by one reader and any number of senders."""

    async def receive(self) -> bytes:
        """Give the server's next word, without CRLF.

        Raises:
            Ended: the connection is over.
            ServerError: these bytes are not the protocol.
        """
        ...

    async def send_heartbeat(self) -> None:
        """Send `h`. Raises Ended."""
        ...

    async def send_acknowledgement(self, mid: int) -> None:
        """Send `a<MID>`. Raises Ended."""
        ...

    async def close(self) -> None:
        """End it, politely for a second. Never raises."""
        ...

    def abort(self) -> None:
        """End it at once; receive() raises Ended."""
        ...


async def open_websocket(
    address: str, subscription: Subscription, max_message_bytes: int, tls: ssl.SSLContext | None
) -> Transport:
    """Connect and ask for a subscription; the server's first word answers.

    The caller sets the deadline.

    Raises:
        Ended: no connection, for whatever reason.
    """
    scheme = "ws" if tls is None else "wss"
    try:
        connection = await connect(
            f"{scheme}://{address}/sub?{subscription.query()}",
            # The protocol has its own heartbeats, and messages are mostly small.
            compression=None,
            ping_interval=None,
            ssl=tls,
            # As the HTTP side of the client: proxies of the environment are not used.
            proxy=None,
            logger=_discreet_logger(),
            open_timeout=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            max_size=max_message_bytes,
            # The inbox is the buffer.
            max_queue=4,
        )
    except (OSError, EOFError, WebSocketException) as error:
        raise _unreachable(address, error) from error
    return _WebSocketTransport(connection)


async def open_tcp(
    address: str, subscription: Subscription, max_message_bytes: int, tls: ssl.SSLContext | None
) -> Transport:
    """As open_websocket(), over the raw TCP protocol."""
    host, port = split_address(address)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_MAX_LINE_BYTES)
    except OSError as error:
        raise _unreachable(address, error) from error
    writer.write(subscription.command())
    return _TcpTransport(reader, writer, max_message_bytes)


def split_address(address: str) -> tuple[str, int]:
    """Take "host:port" apart; IPv6 hosts stand in brackets.

    Raises:
        ServerError: it is no address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ServerError(f"the server named the address {address[:80]!r}, which is not host:port")
    return match[1].removeprefix("[").removesuffix("]"), int(match[2])


def _discreet_logger() -> logging.Logger:
    """A logger without DEBUG, where the library would write the request with its token."""
    # Not one of getLogger()'s, whose level is for the application to set.
    logger = logging.Logger(f"{__name__}.websocket", logging.INFO)  # noqa: LOG001
    logger.parent = logging.getLogger(__name__)
    return logger


def _unreachable(address: str, error: Exception) -> Ended:
    return Ended(1006, f"cannot connect to {address}: {error or type(error).__name__}")


class _WebSocketTransport:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        try:
            word: bytes = await self._connection.recv(decode=False)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed
        return word.removesuffix(b"\r\n")

    async def send_heartbeat(self) -> None:
        await self._send("h")

    async def send_acknowledgement(self, mid: int) -> None:
        await self._send(f"a{mid}")

    async def _send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def close(self) -> None:
        with contextlib.suppress(OSError, WebSocketException):
            await self._connection.close()

    def abort(self) -> None:
        self._connection.transport.abort()


def _ended(closed: ConnectionClosed) -> Ended:
    if closed.rcvd is not None and closed.rcvd_then_sent is not False:
        return Ended(closed.rcvd.code, closed.rcvd.reason or "closed by the server")
    if closed.sent is not None:
        # The library closed, because the server broke RFC 6455 or a message is over the limit.
        return Ended(closed.sent.code, closed.sent.reason or "closed")
    return Ended(1006, "connection lost")


class _TcpTransport:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_message_bytes: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._max_message_bytes = max_message_bytes

    async def receive(self) -> bytes:
        try:
            line = (await self._reader.readuntil(b"\r\n"))[:-2]
            if not line.startswith(b"$"):
                return line
            size = self._size(line[1:])
            document = await self._reader.readexactly(size + 2)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Ended(1006, "connection lost") from error
        except asyncio.LimitOverrunError as error:
            raise ServerError("the server sent a line over the limit") from error
        if not document.endswith(b"\r\n"):
            raise ServerError("the server sent a message that does not have the announced length")
        return document[:-2]

    def _size(self, digits: bytes) -> int:
        if not digits.isdigit() or len(digits) > 18:
            raise ServerError(f"the server announced a message of {digits[:40]!r} bytes")
        size = int(digits)
        if size > self._max_message_bytes:
            raise Ended(1009, f"a message of {size} bytes is over max_message_bytes")
        return size

    async def send_heartbeat(self) -> None:
        await self._send(b"h")

    async def send_acknowledgement(self, mid: int) -> None:
        await self._send(b"a%d\r\n" % mid)

    async def _send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise Ended(1006, "connection lost") from error

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        self._writer.transport.abort()
