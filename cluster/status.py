"""The status port: /healthz (alive), /readyz (able to serve), /metrics (Prometheus text).

Reads cluster/stats.py only when somebody asks; counts nothing itself. HTTP in
its simplest form, one request per connection: every node has this port, and
not every node has use for a web framework.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from cluster.exposition import CONTENT_TYPE, exposition
from cluster.listening import serve
from cluster.stats import Stats

# From connecting until the request is there, and again until its answer has been taken.
DEADLINE_S = 10.0
# The request's line and header fields.
MAX_HEAD_BYTES = 8 * 1024
# Probes and scrapers come a few at a time; more are closed at once.
MAX_CONNECTIONS = 64

STOP_S = 1.0

_JSON = "application/json;charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the status port."""

    status: int
    body: str
    content_type: str = _TEXT
    # Further header fields, each with its line end.
    fields: str = ""


class StatusListener:
    """HTTP listener for probes and scrapers."""

    def __init__(
        self,
        bind: str,
        stats: Stats,
        ready_fault: Callable[[], str | None],
        notes: Callable[[], Iterable[str]] = tuple,
        documents: Mapping[str, Callable[[], str]] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Prepare it.

        Args:
            bind: "host:port", port 0 = any; empty = there is no such port.
            ready_fault: says why this process cannot serve now; None = it can.
            notes: what /readyz tells besides, a line each.
            documents: JSON by path, for other nodes; more may be added later.
        """
        self._bind = bind
        self._stats = stats
        self._ready_fault = ready_fault
        self._notes = notes
        self._documents = {} if documents is None else documents
        self._context = _Context(self._answer, deadline_s)
        self._server: asyncio.Server | None = None
        self._address = ""

    @property
    def addresses(self) -> dict[str, str]:
        """Bound "host:port" by purpose ("status"), once started; none of a port that is switched off."""
        return {"status": self._address} if self._address else {}

    async def start(self) -> str:
        """Listen; return "host:port" as it was bound, empty when it is switched off.

        Raises:
            OSError: the address cannot be bound.
        """
        if self._bind:
            self._server, self._address = await serve(
                lambda: _Connection(self._context), self._bind, MAX_CONNECTIONS
            )
        return self._address

    async def stop(self) -> None:
        """Close the listener and what is connected to it."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        connections = list(self._context.connections)
        for connection in connections:
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                for connection in connections:
                    await connection.closed

    def _answer(self, method: str, path: str) -> Reply:
        if method not in ("GET", "HEAD"):
            return Reply(405, "method not allowed\n", fields="Allow: GET, HEAD\r\n")
        match path:
            case "/healthz":
                return Reply(200, "alive\n")
            case "/readyz":
                return self._readiness()
            case "/metrics":
                return Reply(200, exposition(self._stats.snapshot()), CONTENT_TYPE)
        if (document := self._documents.get(path)) is not None:
            return Reply(200, document(), _JSON)
        return Reply(404, "not found; there are /healthz, /readyz and /metrics\n")

    def _readiness(self) -> Reply:
        fault = self._ready_fault()
        lines = ["ready" if fault is None else fault, *self._notes()]
        return Reply(200 if fault is None else 503, "".join(f"{line}\n" for line in lines))


@dataclass(frozen=True, slots=True)
class _Context:
    """What the connections share."""

    # Method and path to answer.
    answer: Callable[[str, str], Reply]
    deadline_s: float
    connections: set[_Connection] = field(default_factory=set)


class _Connection(asyncio.Protocol):
    """One request, one answer, closed."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._is_answered = False
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = loop.create_future()

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's transports only look like one.
        self._transport = cast(asyncio.Transport, transport)
        connections = self._context.connections
        connections.add(self)
        if len(connections) > MAX_CONNECTIONS:
            self.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._is_answered:
            return
        self._head += data
        end = self._head.find(_END_OF_HEAD)
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._head) > MAX_HEAD_BYTES):
            self._send(Reply(431, "request header fields too large\n"))
        elif end >= 0:
            self._serve(self._head[: self._head.index(b"\r\n")])

    def eof_received(self) -> bool:
        """Called by the loop: who has asked may still read the answer."""
        return self._is_answered

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._context.connections.discard(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def _serve(self, line: bytes) -> None:
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._send(Reply(400, "bad request\n"))
            return
        method, target, _ = words
        self._send(self._context.answer(method, target.partition("?")[0]), has_body=method != "HEAD")

    def _send(self, reply: Reply, *, has_body: bool = True) -> None:
        assert self._transport is not None
        self._is_answered = True
        self._head = b""
        body = reply.body.encode()
        head = (
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
            f"Date: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: {reply.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            f"Connection: close\r\n{reply.fields}\r\n"
        )
        self._transport.write(head.encode() + (body if has_body else b""))
        self._watch()
        self._transport.close()

    def _watch(self) -> None:
        """Cut the connection when its next step is not done in time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._context.deadline_s, self.abort)
