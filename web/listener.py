"""A listening socket that speaks HTTP: the only file, with request.py, that knows aiohttp.

aiohttp parses and keeps connections alive; what is usually above that
(Application, middlewares, its Request and Response) is left out, which
halves the CPU of a request (bench/http.py). Bounds what a client can hold:
connections, requests in progress, the time for a head, a body, an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from cluster.settings import join_address, split_address
from web.config import WebConfig
from web.limits import ByteBudget
from web.replies import Answer, api_of, refusal, transport_error
from web.request import DisconnectedError, Request, RequestHead

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter

log = logging.getLogger(__name__)

# With 100, a burst of 5,000 connects takes 2.8 s instead of 0.2 s.
BACKLOG = 4096
# More fields than any client or proxy sends; each has at most config.max_header_bytes.
MAX_HEADER_FIELDS = 64
# How long an answer that was sent before the whole body is kept from being
# cut off by the reset that follows when we close with unread bytes.
LINGER_S = 2.0

# Answers a request; None when it has sent its own answer (a stream).
Serve = Callable[[Request], Awaitable[Answer | None]]


class Listener:
    """One port of a web node."""

    def __init__(
        self,
        serve: Serve,
        config: WebConfig,
        budget: ByteBudget,
        name: str,
        make_connection: Callable[..., Connection] | None = None,
    ) -> None:
        """Prepare; start() binds.

        Args:
            name: for the log.
            make_connection: Connection, or a kind of it.
        """
        self._serve = serve
        self._config = config
        self._budget = budget
        self._name = name
        self._make_connection = make_connection or Connection
        self._tasks: set[asyncio.Task[None]] = set()
        self._web_server: WebServer | None = None
        self._server: asyncio.Server | None = None
        # Requests that are not answered yet. Plain, because it changes with each; down by count_out() only.
        self.in_progress = 0
        self._is_draining = False
        # Set when no request is in progress any more; made by a drain that waits for it.
        self._emptied: asyncio.Event | None = None
        self._date = b""
        self._date_s = 0
        # Overload is logged when it starts and when it has ended.
        self._is_overloaded = False
        # Open connections; changed by Connection.
        self.connection_count = 0
        # Bound "host:port", once started.
        self.address = ""

    async def start(self, bind: str) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = split_address(bind)
        config = self._config
        self._web_server = WebServer(
            self,
            self._handle,
            config.header_timeout_s,
            config.max_connections,
            self._make_connection,
            request_factory=self._make_request,
            access_log=None,
            keepalive_timeout=config.keep_alive_s,
            max_line_size=config.max_header_bytes,
            max_field_size=config.max_header_bytes,
            max_headers=MAX_HEADER_FIELDS,
            lingering_time=LINGER_S,
            # A compressed body could unpack to anything; we take what was sent.
            auto_decompress=False,
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            cast("Callable[[], asyncio.Protocol]", self._web_server), host or None, port, backlog=BACKLOG
        )
        name = self._server.sockets[0].getsockname()
        self.address = join_address(name[0], name[1])

    @property
    def is_draining(self) -> bool:
        """No request is taken any more; answers end their connections."""
        return self._is_draining

    @property
    def has_room(self) -> bool:
        """Whether another request is taken."""
        return not self._is_draining and self.in_progress < self._config.max_requests

    def count_out(self) -> None:
        """One less is in progress."""
        self.in_progress -= 1
        if not self.in_progress:
            self._is_overloaded = False
            if self._emptied is not None:
                self._emptied.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what belongs to a request; stop() cancels it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def date_line(self) -> bytes:
        """The header of this second."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s = now_s
            self._date = b"Date: %b\r\n" % formatdate(now_s, usegmt=True).encode()
        return self._date

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, and wait until what was accepted is answered, at most timeout_s."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
        if not self.in_progress:
            return
        self._emptied = self._emptied or asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()
        except TimeoutError:
            log.warning("%s requests of the %s API not answered in time", self.in_progress, self._name)

    async def stop(self) -> None:
        """Close everything that is left."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
        if self._web_server is not None:
            await self._web_server.shutdown(0.05)
            self._web_server = None
        for task in list(self._tasks):
            task.cancel()

    def _make_request(
        self,
        message: RequestHead,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Request:
        return Request(message, payload, protocol, writer, self._budget, self._config.body_timeout_s)

    async def _handle(self, request: Request) -> _Sent:
        if self.in_progress >= self._config.max_requests:
            return await self._refuse(request)
        self.in_progress += 1
        try:
            answer = await self._serve(request)
            if answer is None:
                return _KEEP if request.is_body_read and not self._is_draining else _CLOSE
            return await self._send(request, answer)
        except DisconnectedError:
            return _CLOSE
        finally:
            request.release()
            self.count_out()

    async def _send(self, request: Request, answer: Answer) -> _Sent:
        is_kept = request.is_body_read and not (request.wants_close or self._is_draining)
        head = answer.head
        connection = b"" if is_kept else b"Connection: close\r\n"
        if request.is_http10:
            head = b"HTTP/1.0" + head[8:]
            connection = b"Connection: keep-alive\r\n" if is_kept else b""
        body = b"" if request.method == "HEAD" else answer.body
        data = b"%b%b%b%b\r\n%b" % (head, self.date_line(), connection, request.extra_head, body)
        await request.write(data, self._config.send_timeout_s)
        return _KEEP if is_kept else _CLOSE

    async def _refuse(self, request: Request) -> _Sent:
        if not self._is_overloaded:
            self._is_overloaded = True
            log.warning("overloaded: %s requests of the %s API in progress", self.in_progress, self._name)
        answer = refusal(503, api_of(request.path), "too many requests in progress")
        try:
            return await self._send(request, answer)
        except DisconnectedError:
            return _CLOSE


class _Sent:
    """Stands for an answer where aiohttp wants one; its bytes have been written already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None:
        pass

    async def write_eof(self) -> None:
        pass


_KEEP = _Sent(True)
_CLOSE = _Sent(False)


class WebServer(web.Server):
    """Makes our kind of connection."""

    def __init__(
        self,
        listener: Listener,
        handler: Any,
        header_timeout_s: float,
        max_connections: int,
        make_connection: Callable[..., Connection],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self.listener = listener
        self.header_timeout_s = header_timeout_s
        self.max_connections = max_connections
        self.make_connection = make_connection

    def __call__(self) -> RequestHandler:
        return self.make_connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Connection(RequestHandler):
    """aiohttp's connection, with a deadline for the head of a request and terse answers to nonsense."""

    __slots__ = ("_head_timer", "_server")

    def __init__(self, server: WebServer, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        # Runs while the head of a request is awaited: from connecting, later
        # from its first byte. Idling between requests has keep_alive_s.
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.listener.connection_count += 1
        if self._server.listener.connection_count > self._server.max_connections:
            cast("asyncio.Transport", transport).abort()
            return
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.listener.connection_count -= 1
        self._stop_head_timer()
        # Between an answer and the rest of its request's body aiohttp waits for bytes that will not come.
        lingering = None if self._request_in_progress else self._task_handler
        super().connection_lost(exc)
        if lingering is not None:
            lingering.cancel()

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        waiter = self._waiter
        super().data_received(data)
        if self._request_count != before:
            self._stop_head_timer()
        elif self._head_timer is None and waiter is not None and not waiter.done():
            # Idle until now, and no request is complete: it is a part of a head.
            self._start_head_timer()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Skip what aiohttp does after every read of a body when nothing was paused: 3 us a request."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a client that has shut down its own direction after the request."""
        request = cast("Request | None", self._current_request)
        if request is not None and request.is_body_read:
            self.close()
            return True
        return None

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """Answer what is no HTTP request in one line; log only what is our own fault."""
        if status == 500:
            log.error("request failed in the listener", exc_info=exc)
        elif isinstance(exc, LineTooLong) or "Too many headers" in (message or ""):
            status = 431
        self._write_error(status)
        return _CLOSE

    def _start_head_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._head_timer = loop.call_later(self._server.header_timeout_s, self._give_up_head)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up_head(self) -> None:
        self._head_timer = None
        self._write_error(408)
        self.force_close()

    def _write_error(self, status: int) -> None:
        if self.transport is not None and not self.transport.is_closing():
            answer = transport_error(status)
            self.transport.write(b"%bConnection: close\r\n\r\n%b" % (answer.head, answer.body))
