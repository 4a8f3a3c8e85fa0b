"""The short way of the most frequent request: a push to one key, complete in one read of an idle connection.

aiohttp's parser, its objects and its task take 30 us of CPU a request; this
takes 5 (bench/push.py: 85 to 54 us for a push with expire 0). Everything that
is not exactly this request in its plainest form goes the usual way, before
anything of it was done. So nothing is decided here that the usual way would
decide otherwise, and no error is answered here but one of a push.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from cluster.contracts.comet import PushReply
from cluster.errors import EnckeError
from cluster.model import MAX_KEY_BYTES, Key
from web.access import Access, Verdict
from web.connection import MAX_HEADER_FIELDS, Connection, WebServer, announced_length
from web.limits import FailureLimiter
from web.metrics import WebMetrics
from web.params import expire_param, key_param, parse_query
from web.payload import canonical
from web.push import PendingPush, Pusher
from web.replies import Answer, Api, compatible, failure, failure_code
from web.request import host_of

log = logging.getLogger(__name__)

PATHS = ("/1/admin/push/private", "/admin/push")

MAX_HEAD_BYTES = 2048
# Larger bodies are counted in the budget, which only the usual way does.
MAX_BODY_BYTES = 4096
# What a client may send behind a request that is not answered yet before it is not read any more.
MAX_BEHIND_BYTES = 64 * 1024
# Turns of the loop for aiohttp to come back from a request that it has answered; it takes one or two.
MAX_RETURN_TURNS = 8
# Not a length.
_UNKNOWN = -1
# Header sections that are remembered. Clients repeat theirs, but for the length.
MAX_SECTIONS = 512

_REQUEST_LINE = re.compile(rb"POST (/[!\"$->@-~]*)\?([!\"$-~]*) HTTP/1\.1")
# A key and a time as nearly all are, which need neither decoding nor checking: 2 us less a push.
_PLAIN_LINE = re.compile(
    rb"POST (/[a-z0-9/]+)\?key=([A-Za-z0-9_.:@~-]{1,%d})&expire=([0-9]{1,9}) HTTP/1\.1\r\n" % MAX_KEY_BYTES
)
_FIELD = re.compile(rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]*)")
_LENGTH = re.compile(rb"[0-9]{1,4}")
# Fields that change what a request means; the usual way knows how.
_MEANINGFUL = frozenset(
    {b"content-encoding", b"expect", b"origin", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


class QuickPushes:
    """Recognises the requests and begins their pushes. Knows no sockets."""

    def __init__(
        self,
        pusher: Pusher,
        access: Access,
        metrics: WebMetrics,
        max_payload_bytes: int,
        limiter: FailureLimiter,
    ) -> None:
        """Recognise nothing yet.

        Args:
            limiter: where a token is wanted, only addresses that it trusts are served: whoever guesses
                tokens has to go the usual way, which counts.
        """
        self._pusher = pusher
        self._access = access
        self._limiter = limiter if access.wants_token else None
        self._metrics = metrics
        self._max_payload_bytes = max_payload_bytes
        self._counters = {path.encode(): metrics.requests.child(path) for path in PATHS}
        # Length of the body by header section, None where the usual way must be gone.
        self._lengths: dict[bytes, int | None] = {}
        # The answer of a push that has succeeded.
        self.ok = compatible()
        # See Pusher. Handed on like this because each call on the way counts.
        self.take_success = pusher.take_success
        self.expect = pusher.expect

    def begin(self, data: bytes, peer: object) -> PendingPush | None:
        """Begin the push of a request; None = go the usual way, nothing was done.

        Args:
            peer: name of the socket at the other end.
        """
        if self._limiter is not None and not self._limiter.is_trusted(host_of(peer)):
            return None
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        line_end = data.find(b"\r\n")
        if end <= 0:
            return None
        section = data[line_end:end]
        length = self._lengths.get(section, _UNKNOWN)
        if length == _UNKNOWN:
            length = self._remember(section)
        if length is None or len(data) != end + 4 + length:
            return None
        line = _PLAIN_LINE.match(data)
        query = None
        if line is None:
            query = line = _REQUEST_LINE.fullmatch(data, 0, line_end)
        counter = self._counters.get(line[1]) if line is not None else None
        if line is None or counter is None:
            return None
        try:
            key, expire_s = (Key(line[2].decode()), int(line[3])) if query is None else _read_query(query)
            payload = canonical(data[end + 4 :], self._max_payload_bytes)
            pending = self._pusher.begin_one(key, payload, expire_s)
        except EnckeError:
            return None
        counter.value += 1
        return pending

    async def settle(self, pending: PendingPush) -> Answer:
        """Do what a push still needs, whatever has come of it so far; its answer."""
        try:
            reply = await self._pusher.finish(pending)
        except EnckeError as error:
            return failure(error, Api.COMPATIBLE)
        except Exception:
            self._metrics.errors.value += 1
            log.exception("push failed: key=%s", pending.keys[0])
            return failure(EnckeError("internal error"), Api.COMPATIBLE)
        return failure_code(reply.failed[0].code, "", Api.COMPATIBLE) if reply.failed else self.ok

    def _remember(self, section: bytes) -> int | None:
        if len(self._lengths) >= MAX_SECTIONS:
            self._lengths.clear()
        length = self._lengths[section] = self._read_section(section)
        return length

    def _read_section(self, section: bytes) -> int | None:
        fields: dict[bytes, bytes] = {}
        position = 0
        while match := _FIELD.match(section, position):
            name = match[1].lower()
            if name in fields or name in _MEANINGFUL:
                return None
            fields[name] = match[2].rstrip()
            if name == b"connection" and fields[name].lower() != b"keep-alive":
                return None
            position = match.end()
        length = fields.get(b"content-length", b"")
        is_whole = position == len(section) and len(fields) <= MAX_HEADER_FIELDS
        if not is_whole or b"host" not in fields or _LENGTH.fullmatch(length) is None:
            return None
        authorization = fields.get(b"authorization")
        given = None if authorization is None else authorization.decode()
        if int(length) > MAX_BODY_BYTES or self._access.check(None, given) is not Verdict.ALLOWED:
            return None
        return int(length)


def _read_query(line: re.Match[bytes]) -> tuple[Key, int]:
    """Read the parameters of a push.

    Raises:
        RequestError: one is missing or wrong.
    """
    params = parse_query(line[2].decode())
    return key_param(params.get("key", "")), expire_param(params.get("expire", ""))


class QuickConnection(Connection):
    """A connection of the admin API: serves such requests itself, between those that aiohttp serves."""

    __slots__ = ("_behind", "_ends_after", "_owed", "_pending", "_pushes")

    def __init__(
        self,
        server: WebServer,
        *,
        pushes: QuickPushes,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._pushes = pushes
        # The push that is to be answered next.
        self._pending: PendingPush | None = None
        # What has arrived meanwhile, or while aiohttp comes back from the request before.
        self._behind = b""
        # The client has shut down its own direction behind these.
        self._ends_after = False
        # Bytes that a request still lacks of which aiohttp has a part: only at 0 does it stand between two
        # requests. Below 0 nobody knows, and nothing goes the short way any more: what looks like a push
        # could be the rest of something else.
        self._owed = 0

    def data_received(self, data: bytes) -> None:
        if self._pending is not None or self._behind:
            self._hold(data)
        elif data and self._is_returning():
            # Given to aiohttp now, this would be followed by another that comes as early, and so on: a
            # client that is as quick as that would never have its pushes go the short way.
            self._hold(data)
            self._loop.call_soon(self._on_returned, MAX_RETURN_TURNS)
        else:
            self._take(data)

    def _hold(self, data: bytes) -> None:
        self._behind += data
        if len(self._behind) > MAX_BEHIND_BYTES and self.transport is not None:
            # Nor is the client's end read: aiohttp takes one within a body that it keeps for the end of all.
            self.transport.pause_reading()

    def _take(self, data: bytes) -> None:
        pending = self._pushes.begin(data, self.peername) if self._is_idle() else None
        if pending is None:
            before = self._request_count
            super().data_received(data)
            self._owed = self._still_owed(data, self._request_count - before)
            if self._ends_after and not super().eof_received() and self.transport is not None:
                self.transport.close()
            return
        self._next_keepalive_close_time = pending.sent_at + self._keepalive_timeout
        self._server.listener.in_progress += 1
        self._pending = pending
        future = pending.calls[0][1]
        if future.done():
            self._on_result(future)
        else:
            self._pushes.expect(pending)
            future.add_done_callback(self._on_result)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """As the usual way: answer first."""
        if self._pending is None and not self._behind:
            return super().eof_received()
        self._ends_after = True
        return True

    def _is_idle(self) -> bool:
        """Whether aiohttp has answered everything and waits for the next request, of which it has no part."""
        waiter = self._waiter
        listener = self._server.listener
        return (
            waiter is not None
            and not waiter.done()
            and self._is_between()
            and listener.in_progress < listener.max_in_progress
        )

    def _is_returning(self) -> bool:
        """Whether aiohttp has answered everything, and does not wait for the next request yet."""
        return self._waiter is None and self.handled == self._request_count > 0 and self._is_between()

    def _is_between(self) -> bool:
        return (
            not self._owed
            and self._head_timer is None
            and not (self._paused or self._upgraded or self._close or self._force_close)
        )

    def _on_returned(self, turns: int) -> None:
        """Serve what has arrived when aiohttp is back; it has so many turns of the loop for that."""
        if turns and self._is_returning():
            self._loop.call_soon(self._on_returned, turns - 1)
        else:
            self._take_behind()

    def _take_behind(self) -> None:
        behind, self._behind = self._behind, b""
        if behind and self.transport is not None:
            self.transport.resume_reading()
            self._take(behind)

    def _still_owed(self, data: bytes, began: int) -> int:
        """See _owed, after aiohttp was given these bytes and found the heads of `began` requests in them."""
        if self._owed > 0:
            return self._owed - len(data)
        if self._owed or not data:
            return self._owed
        head_end = data.find(b"\r\n\r\n")
        length = announced_length(self._messages[-1][0]) if began == 1 else None
        if head_end < 0 or length is None:
            return _UNKNOWN
        return head_end + 4 + length - len(data)

    def _process_keepalive(self) -> None:
        """Not while a push is unanswered: to aiohttp the connection idles."""
        if self._pending is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def _on_result(self, future: asyncio.Future[PushReply]) -> None:
        assert self._pending is not None
        pushes = self._pushes
        if pushes.take_success(self._pending):
            self._answer(pushes.ok)
        else:
            self._server.listener.spawn(self._settle(self._pending))

    async def _settle(self, pending: PendingPush) -> None:
        self._answer(await self._pushes.settle(pending))

    def _answer(self, answer: Answer) -> None:
        listener = self._server.listener
        self._pending = None
        listener.count_out()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        is_kept = not (listener.is_draining or (self._ends_after and not self._behind))
        connection = b"" if is_kept else b"Connection: close\r\n"
        transport.write(b"%b%b%b\r\n%b" % (answer.head, listener.date_line(), connection, answer.body))
        if not is_kept:
            transport.close()
        else:
            self._take_behind()
