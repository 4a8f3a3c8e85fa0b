"""One HTTP request as the handlers see it, and the bytes that go back.

Built by aiohttp for each request instead of its own class, of which it keeps
what the hot path needs: 20 us of CPU a request saved (bench/http.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from aiohttp import StreamReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion, HttpVersion10

from cluster.errors import EnckeError, TooLargeError
from web.serving.limits import ByteBudget

if TYPE_CHECKING:
    from web.serving.connection import Connection

# Bodies up to this are not counted in the budget: they came in one read of the socket.
SMALL_BODY_BYTES = 4096


class RequestHead(Protocol):
    """What aiohttp's parser says of a request."""

    method: str
    path: str
    version: HttpVersion
    # Names compare without case.
    headers: Mapping[str, str]
    should_close: bool


class DisconnectedError(EnckeError):
    """The client is gone; nobody reads an answer."""


class BodyTimeoutError(EnckeError):
    """The body did not arrive in time."""


class Request:
    """A request whose head has arrived."""

    __slots__ = (
        "_budget",
        "_held",
        "_payload",
        "_protocol",
        "_task",
        "_writer",
        "body_timeout_s",
        "extra_head",
        "headers",
        "is_answered",
        "is_http10",
        "method",
        "path",
        "query",
        "wants_close",
    )

    def __init__(
        self,
        message: RequestHead,
        payload: StreamReader,
        protocol: Connection,
        writer: AbstractStreamWriter,
        budget: ByteBudget,
        body_timeout_s: float,
    ) -> None:
        target = message.path
        if not target.startswith("/"):
            target = _origin_form(target)
        # Both as sent, percent escapes and all.
        self.path, _, self.query = target.partition("?")
        self.method = message.method
        self.headers = message.headers
        self.wants_close = message.should_close
        self.is_http10 = message.version <= HttpVersion10
        self.body_timeout_s = body_timeout_s
        # Whole header lines that the answer gets in addition.
        self.extra_head = b""
        # The head of the answer has been sent.
        self.is_answered = False
        self._payload = payload
        self._protocol = protocol
        self._writer = writer
        self._budget = budget
        # Bytes taken from the budget.
        self._held = 0
        # aiohttp breaks a reference cycle by setting it.
        self._task: object = None

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection; None when it is gone."""
        return self._protocol.transport

    @property
    def remote(self) -> str:
        """Address of the peer without its port; empty when it is gone."""
        return host_of(self._protocol.peername)

    @property
    def local_host(self) -> str:
        """Address at which the peer reached us, without its port; empty when it is gone."""
        name = self._protocol.sockname
        return name[0] if isinstance(name, tuple) else ""

    @property
    def is_body_read(self) -> bool:
        """Whether the whole body has arrived, so that another request can follow."""
        return self._payload.is_eof()

    def body_now(self, limit: int) -> bytes | None:
        """The whole body, if it has arrived with the head; saves body()'s coroutine.

        Raises:
            As body().
        """
        if not self._payload.is_eof():
            return None
        self.expect_body()
        body = self._payload.read_nowait(-1)
        size = len(body)
        if size > limit:
            raise TooLargeError(f"the body is over {limit} bytes")
        if size > SMALL_BODY_BYTES:
            self._hold(size)
        return body

    async def body(self, limit: int) -> bytes:
        """Read the whole body.

        Raises:
            TooLargeError: over limit bytes; the rest is not read.
            BodyTimeoutError: it did not arrive within the body's timeout.
            DisconnectedError: the connection ended before the body did.
            UnavailableError: too many bytes of other requests are held.
        """
        body = self.body_now(limit)
        if body is None:
            self.expect_body()
            body = await self._slow_body(limit)
        return body

    async def some(self, timeout_s: float) -> bytes:
        """Read what has arrived of the body, waiting for at least one byte; empty at its end.

        Raises:
            BodyTimeoutError: nothing came.
            DisconnectedError: the connection ended before the body did.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._payload.readany()
        except TimeoutError:
            raise BodyTimeoutError("the body did not arrive in time") from None
        except (OSError, RuntimeError, ValueError) as error:
            # aiohttp says so in several ways.
            raise DisconnectedError("the connection ended within the body") from error

    def expect_body(self) -> None:
        """Tell a client that waits for it to send the body (also when it did not wait, as the original)."""
        if "Expect" not in self.headers or self.is_http10:
            return
        transport = self._protocol.transport
        expects = self.headers["Expect"].lower() == "100-continue"
        if expects and transport is not None and not transport.is_closing():
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def release(self) -> None:
        """The request is done: its bytes no longer count, and another may follow."""
        self._protocol.count_handled()
        if self._held:
            self._budget.give_back(self._held)
            self._held = 0

    async def write(self, data: bytes, timeout_s: float) -> None:
        """Send bytes, and wait until the client has taken most of what was sent to it.

        Raises:
            DisconnectedError: the client is gone, or read nothing for timeout_s; it is cut off.
        """
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise DisconnectedError("the client is gone")
        self.is_answered = True
        transport.write(data)
        if self._protocol.writing_paused:
            await self._drain(transport, timeout_s)

    # -- what aiohttp asks of a request

    def _finish(self) -> None:
        pass

    def _cancel(self, error: BaseException) -> None:
        self._payload.set_exception(error)

    # -- helpers

    async def _slow_body(self, limit: int) -> bytes:
        length = self.headers.get("Content-Length")
        if length is not None and int(length) > limit:
            raise TooLargeError(f"the body is over {limit} bytes")
        chunks: list[bytes] = []
        size = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.body_timeout_s
        while not self._payload.at_eof():
            chunk = await self.some(deadline - loop.time())
            size += len(chunk)
            if size > limit:
                raise TooLargeError(f"the body is over {limit} bytes")
            self._hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _hold(self, n: int) -> None:
        self._budget.take(n)
        self._held += n

    async def _drain(self, transport: asyncio.Transport, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
        except TimeoutError:
            transport.abort()
            raise DisconnectedError("the client does not read") from None
        except OSError as error:
            raise DisconnectedError("the client is gone") from error


def _origin_form(target: str) -> str:
    """Path and query of "http://host/path?query", which proxies send."""
    _, scheme_end, rest = target.partition("://")
    slash = rest.find("/")
    if not scheme_end or slash < 0:
        return "/"
    return rest[slash:]


def host_of(peer: object) -> str:
    """Address of a peer without its port; empty when it is gone."""
    return str(peer[0]) if isinstance(peer, tuple) else str(peer or "")
