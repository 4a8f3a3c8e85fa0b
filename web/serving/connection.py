"""A connection of a listener: aiohttp's, with a deadline for heads and terse answers to nonsense."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from web.codec.replies import transport_error
from web.serving.request import Request

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from web.serving.listener import Listener

log = logging.getLogger(__name__)

# More fields than any client or proxy sends; each has at most config.max_header_bytes.
MAX_HEADER_FIELDS = 64


class Sent:
    """Stands for an answer where aiohttp wants one; its bytes have been written already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None:
        pass

    async def write_eof(self) -> None:
        pass


# Whether the connection goes on after it.
KEEP = Sent(True)
CLOSE = Sent(False)


class WebServer(web.Server):
    """Makes our kind of connection."""

    def __init__(
        self,
        listener: Listener,
        handler: Any,
        header_timeout_s: float,
        make_connection: Callable[..., Connection],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self.listener = listener
        self.header_timeout_s = header_timeout_s
        self.make_connection = make_connection

    def __call__(self) -> RequestHandler:
        return self.make_connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Connection(RequestHandler):
    """aiohttp's connection, with a deadline for the head of a request and terse answers to nonsense."""

    __slots__ = ("_has_ended", "_head_timer", "_last_body", "_server", "handled")

    def __init__(self, server: WebServer, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        # Runs while the head of a request is awaited: from connecting, later
        # from its first byte. Idling between requests has keep_alive_s.
        self._head_timer: asyncio.TimerHandle | None = None
        # Body of the last request that was read, None when all are handled. aiohttp has it in none of its
        # own attributes between taking the request from its queue and beginning its handler.
        self._last_body: StreamReader | None = None
        # Requests whose handlers are done; aiohttp's _request_count has those that were read.
        self.handled = 0
        # The client has shut down its own direction: the last answer is the end.
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._server.listener.admit():
            cast("asyncio.Transport", transport).abort()
            return
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.listener.release()
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
            self._last_body = self._messages[-1][1]
            request = cast("Request | None", self._current_request)
            if request is not None and not request.is_body_read:
                # No request begins within a body: aiohttp means that the body cannot be read any further.
                self._end_within_body(request)
        elif self._head_timer is None and waiter is not None and not waiter.done():
            # Idle until now, and no request is complete: it is a part of a head.
            self._start_head_timer()

    def count_handled(self) -> None:
        """The handler of a request is done."""
        self.handled += 1
        if self.handled == self._request_count:
            self._last_body = None
            if self._has_ended:
                self.close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Skip what aiohttp does after every read of a body when nothing was paused: 3 us a request."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a client that has shut down its own direction after the last request."""
        self._has_ended = self.handled < self._request_count and self._is_last_whole
        return self._has_ended

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """Answer what is no HTTP request in one line; log only what is our own fault."""
        if status == 500:
            log.error("request failed in the listener", exc_info=exc)
        elif isinstance(exc, LineTooLong) or "Too many headers" in (message or ""):
            status = 431
        self._write_error(status)
        return CLOSE

    @property
    def _is_last_whole(self) -> bool:
        """Whether the body of the last request has arrived."""
        body = self._messages[-1][1] if self._messages else self._last_body
        return body is not None and body.is_eof()

    def _end_within_body(self, request: Request) -> None:
        if not request.is_answered:
            self._write_error(400)
        self.force_close()

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


def announced_length(message: object) -> int | None:
    """Bytes of the body behind a head; None = the head does not tell, or there is none that can be read."""
    # CONNECT has no body, whatever its head says: what follows is another protocol, or the next head.
    if not isinstance(message, RawRequestMessage) or message.chunked or message.method == "CONNECT":
        return None
    return int(message.headers.get("Content-Length", 0))
