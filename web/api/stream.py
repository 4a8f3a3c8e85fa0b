"""POST /2/admin/push/stream: a push a line in, an answer a line out, in the same order.

Answers are written while the request is still being read, so a backend can
keep one stream open for all its pushes. Reading waits while too much is
unanswered; the client then feels the back pressure of TCP.

Ordering: pushes to one key are done in the order of their lines, whatever happens
between them. A line names the unanswered one before it to the same key
(Push.follows), and its node refuses it if that one was not done. What was refused is
sent again at its turn to be answered, when it is known what became of all before it.
Lines to that key that come meanwhile are sent when the last that was refused is
answered, behind each other. When the ring changes, the next line waits until those sent under
the old one are answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from cluster.errors import EnckeError, RequestError, TooLargeError
from cluster.model import Epoch, Key
from web.api.lines import Line, follows, may_send, sendable
from web.api.pushapi import PushApi, explain
from web.codec.params import BodyParser, PushRequest
from web.codec.replies import Answer, Api, refusal, v2_bytes
from web.config import WebConfig
from web.pushing.owners import Owners
from web.serving.request import BodyTimeoutError, DisconnectedError, Request

# Answers are joined up to this into one write.
WRITE_BYTES = 64 * 1024

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nX-Content-Type-Options: nosniff\r\n"
    b"Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n"
)


class PushStreams:
    """All push streams of a web node."""

    def __init__(self, api: PushApi, parser: BodyParser, owners: Owners, config: WebConfig) -> None:
        self._api = api
        self._parser = parser
        self._owners = owners
        self._config = config
        self._streams: set[_Stream] = set()
        self._is_draining = False

    async def serve(self, request: Request) -> Answer | None:
        """Serve one stream; returns when its last line is answered, or an answer that refuses it.

        Raises:
            RequestError: the client speaks HTTP/1.0, which has no chunks for the answers.
        """
        if request.is_http10:
            raise RequestError("a stream needs HTTP/1.1")
        if self._is_draining or len(self._streams) >= self._config.max_streams:
            return refusal(503, Api.V2, "draining, or too many streams")
        stream = _Stream(request, self._api, self._parser, self._owners, self._config)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
        return None

    def drain(self) -> None:
        """Read no more lines; each stream ends when what it has read is answered."""
        self._is_draining = True
        for stream in self._streams:
            stream.stop_reading()


class _Stream:
    """One request: a task reads lines and sends pushes, the handler's own writes answers."""

    def __init__(
        self, request: Request, api: PushApi, parser: BodyParser, owners: Owners, config: WebConfig
    ) -> None:
        self._request = request
        self._api = api
        self._parser = parser
        self._owners = owners
        self._config = config
        # Read and not answered, in order; the reader appends, the writer removes.
        self._lines: deque[Line] = deque()
        self._unanswered_bytes = 0
        # Of those the last to each key.
        self._last: dict[Key, Line] = {}
        # The membership under which the last line was sent.
        self._epoch: Epoch = (0, 0)
        self._reader: asyncio.Task[None] | None = None
        # Set when a line was read or reading has ended.
        self._news = asyncio.Event()
        # Set when a line was answered.
        self._room = asyncio.Event()
        self._is_read = False
        # Our own fault, which has ended the reading.
        self._error: BaseException | None = None
        # No more lines are to be read.
        self._is_stopped = False

    async def run(self) -> None:
        """Answer until the body has ended and everything is answered.

        Raises:
            DisconnectedError: the client is gone; pushes that were sent go on.
        """
        request = self._request
        request.expect_body()
        connection = b"Connection: close\r\n" if request.wants_close else b""
        head = b"%b%b%b\r\n" % (_HEAD, connection, request.extra_head)
        await request.write(head, self._config.send_timeout_s)
        self._reader = asyncio.create_task(self._read())
        # Not by the reader itself: cancelled before its first step it would say nothing.
        self._reader.add_done_callback(self._end_reading)
        if self._is_stopped:
            self._reader.cancel()
        try:
            await self._answer_all()
            if self._error is not None:
                # Without the last chunk: the client must not take it for a good end.
                raise self._error
            await request.write(b"0\r\n\r\n", self._config.send_timeout_s)
        finally:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            for line in self._lines:
                if line.pending is not None:
                    line.pending.abandon()

    def stop_reading(self) -> None:
        """Take no more lines."""
        self._is_stopped = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        # Of a line that is not complete. Extended in place: one that drips must not be copied for each piece.
        rest = bytearray()
        # Within a line that is too long and already answered.
        is_skipping = False
        try:
            while chunk := await self._request.some(self._config.stream_idle_s):
                lines: list[bytes] = []
                rest += chunk
                if b"\n" in chunk:
                    *lines, last = bytes(rest).split(b"\n")
                    rest = bytearray(last)
                for line in lines:
                    if not is_skipping:
                        await self._take(line)
                    is_skipping = False
                if len(rest) > self._config.max_line_bytes:
                    if not is_skipping:
                        await self._take(bytes(rest))
                    is_skipping = True
                if is_skipping:
                    rest.clear()
            if not is_skipping:
                await self._take(bytes(rest))
        except (BodyTimeoutError, DisconnectedError):
            # What was read is answered all the same, if there is still somebody.
            pass

    def _end_reading(self, reader: asyncio.Task[None]) -> None:
        self._error = None if reader.cancelled() else reader.exception()
        self._is_read = True
        self._news.set()

    async def _take(self, text: bytes) -> None:
        """Send the push of one line when there is room; an empty line is nothing."""
        if len(text) <= self._config.max_line_bytes and not text.strip():
            return
        line = Line(len(text))
        await self._wait_room(line.size)
        try:
            if line.size > self._config.max_line_bytes:
                raise TooLargeError(f"the line is over {self._config.max_line_bytes} bytes")
            line.push = self._parser.push(text)
            await self._wait_epoch()
            if may_send(line.push.keys, self._last):
                self._send(line, line.push, self._last)
        except EnckeError as error:
            line.error = error
        else:
            for key in line.keys:
                self._last[key] = line
        self._lines.append(line)
        self._unanswered_bytes += line.size
        self._news.set()

    async def _wait_room(self, size: int) -> None:
        while self._lines and (
            len(self._lines) >= self._config.stream_window
            or self._unanswered_bytes + size > self._config.stream_window_bytes
        ):
            await self._wait_answer()

    async def _wait_epoch(self) -> None:
        # A line sent under the old ring may still be refused and sent again.
        while self._lines and self._epoch != self._owners.membership.epoch:
            await self._wait_answer()
        self._epoch = self._owners.membership.epoch

    def _send(self, line: Line, push: PushRequest, last: Mapping[Key, Line]) -> None:
        """Send a line; `last` as in may_send()."""
        line.pending = self._api.begin(push, follows(push.keys, last))
        line.is_sent = True

    def _send_waiting(self) -> None:
        """Send the first line, and with it those behind it that had to wait.

        If each were sent when the one before is answered, a stream that has always something
        to send would go on like this for ever.
        """
        for line, push, last in sendable(self._lines):
            try:
                self._send(line, push, last)
            except EnckeError as error:
                line.error = error

    async def _wait_answer(self) -> None:
        self._room.clear()
        await self._room.wait()

    async def _answer_all(self) -> None:
        out: list[bytes] = []
        size = 0
        while True:
            if not self._lines:
                if self._is_read:
                    break
                self._news.clear()
                await self._news.wait()
                continue
            line = self._lines[0]
            answer = v2_bytes(await self._answer(line)) + b"\n"
            self._lines.popleft()
            self._forget(line)
            self._unanswered_bytes -= line.size
            self._room.set()
            out.append(answer)
            size += len(answer)
            if size >= WRITE_BYTES or not (self._lines and self._lines[0].is_answered):
                await self._write(out)
                size = 0

    async def _answer(self, line: Line) -> object:
        if not line.is_sent and line.error is None:
            # All before it are answered.
            self._send_waiting()
        if line.error is not None:
            return explain(line.error)
        assert line.push is not None
        try:
            body, _ = await self._api.finish(line.push, line.pending)
        except EnckeError as error:
            return explain(error)
        return body

    def _forget(self, line: Line) -> None:
        for key in line.keys:
            if self._last.get(key) is line:
                del self._last[key]

    async def _write(self, out: list[bytes]) -> None:
        data = b"".join(out)
        out.clear()
        await self._request.write(b"%x\r\n%b\r\n" % (len(data), data), self._config.send_timeout_s)
