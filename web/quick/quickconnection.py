"""A connection of the admin API: when a push may go the short way (quick.py), and what arrives meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.contracts.comet import PushReply
from web.codec.replies import Answer
from web.pushing.pending import PendingPush
from web.quick.quick import QuickPushes
from web.serving.connection import Connection, WebServer, announced_length

# What a client may send behind a request that is not answered yet before it is not read any more.
MAX_BEHIND_BYTES = 64 * 1024
# Turns of the loop for aiohttp to come back from a request that it has answered; it takes one or two.
MAX_RETURN_TURNS = 8
# Of _owed.
_UNKNOWN = -1


class QuickConnection(Connection):
    """Serves such pushes itself, between the requests that aiohttp serves."""

    __slots__ = ("_behind", "_owed", "_pending", "_pushes")

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
            # With the client's end: while aiohttp still keeps a part of a long body, it would take that for
            # an end within the body.
            self.transport.pause_reading()

    def _take(self, data: bytes) -> None:
        pending = self._pushes.begin(data, self.peername) if self._is_idle() else None
        if pending is None:
            before = self._request_count
            super().data_received(data)
            self._owed = self._still_owed(data, self._request_count - before)
            if self._has_ended and not super().eof_received() and self.transport is not None:
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
        self._has_ended = True
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
            self._server.listener.spawn(self._finish(self._pending))

    async def _finish(self, pending: PendingPush) -> None:
        self._answer(await self._pushes.finish(pending))

    def _answer(self, answer: Answer) -> None:
        listener = self._server.listener
        self._pending = None
        listener.count_out()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        is_kept = not (listener.is_draining or (self._has_ended and not self._behind))
        connection = b"" if is_kept else b"Connection: close\r\n"
        transport.write(b"%b%b%b\r\n%b" % (answer.head, listener.date_line(), connection, answer.body))
        if not is_kept:
            transport.close()
        else:
            self._take_behind()
