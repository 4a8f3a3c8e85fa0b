"""A listening socket that speaks HTTP.

Only this file, connection.py, request.py and what is built on them for the short
way (web/quick/quickconnection.py) know aiohttp.

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

from cluster.episode import Episode
from cluster.listening import serve
from web.codec.replies import Answer, api_of, refusal
from web.config import WebConfig
from web.serving.connection import CLOSE, KEEP, MAX_HEADER_FIELDS, Connection, Sent, WebServer
from web.serving.limits import ByteBudget
from web.serving.request import DisconnectedError, Request, RequestHead

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter

log = logging.getLogger(__name__)

# With 100, a burst of 5,000 connects takes 2.8 s instead of 0.2 s.
BACKLOG = 4096
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
        # No request is taken any more; answers end their connections. Plain, as the next.
        self.is_draining = False
        # Its connections are closed; an answer that arrives from now on is nobody's.
        self._is_stopped = False
        # How many requests may be in progress before another one is taken by itself.
        self.max_in_progress = config.max_requests
        # Set when no request is in progress any more; made by a drain that waits for it.
        self._emptied: asyncio.Event | None = None
        self._date = b""
        self._date_s = 0
        # Overload is logged when it starts and when it has ended.
        self._is_overloaded = False
        # Open connections.
        self.connection_count = 0
        # They were too many.
        self._full = Episode(ends_at=config.max_connections // 2)
        # Bound "host:port", once started.
        self.address = ""

    async def start(self, bind: str) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        config = self._config
        self._web_server = WebServer(
            self,
            self._handle,
            config.header_timeout_s,
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
        make_protocol = cast("Callable[[], asyncio.Protocol]", self._web_server)
        self._server, self.address = await serve(make_protocol, bind, BACKLOG)

    def admit(self) -> bool:
        """Count a connection; False: it is one too many, and is to be closed at once."""
        self.connection_count += 1
        most = self._config.max_connections
        if self.connection_count <= most:
            return True
        if self._full.starts():
            log.warning("full: %d connections of the %s API, more are closed at once", most, self._name)
        return False

    def release(self) -> None:
        """A connection has ended."""
        self.connection_count -= 1
        if self._full.ends(self.connection_count):
            log.info("no longer full: %d connections of the %s API", self.connection_count, self._name)

    def count_out(self) -> None:
        """One less is in progress."""
        self.in_progress -= 1
        if not self.in_progress:
            self._is_overloaded = False
            if self._emptied is not None:
                self._emptied.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what belongs to a request; stop() cancels it, and afterwards nothing is run."""
        if self._is_stopped:
            work.close()
            return
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
        self.is_draining = True
        self.max_in_progress = 0
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
        self.is_draining = True
        self.max_in_progress = 0
        if self._server is not None:
            self._server.close()
        if self._web_server is not None:
            await self._web_server.shutdown(0.05)
            self._web_server = None
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_request(
        self,
        message: RequestHead,
        payload: StreamReader,
        protocol: Connection,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Request:
        return Request(message, payload, protocol, writer, self._budget, self._config.body_timeout_s)

    async def _handle(self, request: Request) -> Sent:
        try:
            if self.in_progress >= self._config.max_requests:
                return await self._refuse(request)
            self.in_progress += 1
            try:
                answer = await self._serve(request)
                if answer is None:
                    return KEEP if self._is_kept(request) else CLOSE
                if request.is_answered:
                    # A stream that has failed: within its own answer there is no place for another.
                    return CLOSE
                return await self._send(request, answer)
            finally:
                self.count_out()
        except DisconnectedError:
            return CLOSE
        finally:
            request.release()

    async def _send(self, request: Request, answer: Answer) -> Sent:
        is_kept = self._is_kept(request)
        head = answer.head
        connection = b"" if is_kept else b"Connection: close\r\n"
        if request.is_http10:
            head = b"HTTP/1.0" + head[8:]
            connection = b"Connection: keep-alive\r\n" if is_kept else b""
        body = b"" if request.method == "HEAD" else answer.body
        data = b"%b%b%b%b\r\n%b" % (head, self.date_line(), connection, request.extra_head, body)
        await request.write(data, self._config.send_timeout_s)
        return KEEP if is_kept else CLOSE

    def _is_kept(self, request: Request) -> bool:
        """Whether the connection goes on behind the answer."""
        return request.is_body_read and not (request.wants_close or self.is_draining)

    async def _refuse(self, request: Request) -> Sent:
        if not self._is_overloaded:
            self._is_overloaded = True
            log.warning("overloaded: %s requests of the %s API in progress", self.in_progress, self._name)
        answer = refusal(503, api_of(request.path), "too many requests in progress")
        return await self._send(request, answer)
