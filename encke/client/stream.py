"""A stream of pushes over one HTTP request, opened again from the first unanswered push when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from itertools import islice

import aiohttp
import msgspec

from encke.client.backoff import Backoff
from encke.client.errors import PushError, PushTimeoutError, ServerError
from encke.client.failures import push_failure
from encke.client.pushes import Push, PushReply, is_doubtful, is_worth_retrying, parse_answer

_NDJSON = {"Content-Type": "application/x-ndjson"}
# An answer names every key of its push: 100,000 keys of 512 bytes are this much.
_MAX_ANSWER_BYTES = 64 * 1024 * 1024


class StreamOptions(msgspec.Struct, frozen=True):
    """Limits of a stream."""

    # Pushes sent and not answered yet.
    max_in_flight: int
    # Without any answer for so long, over all attempts, the stream fails.
    timeout_s: float
    # An attempt without an answer for so long is given up.
    attempt_timeout_s: float


class _Line(msgspec.Struct, frozen=True):
    push_id: str
    data: bytes
    # Loop time.
    taken_at: float
    # It has no id and may have been done: not to be sent again.
    loss: PushError | None = None


class PushStream:
    """One stream. The feeder reads the caller's pushes; run() sends them and yields the answers.

    The feeder is a task of its own, because a request that breaks must not
    take the caller's iterator with it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        backoff: Backoff,
        options: StreamOptions,
        on_retry: Callable[[PushError], None] | None,
    ) -> None:
        self._session = session
        self._url = url
        self._backoff = backoff
        self._options = options
        self._on_retry = on_retry
        # In order. A request begins with the first of them.
        self._unanswered: deque[_Line] = deque()
        self._slots = asyncio.Semaphore(options.max_in_flight)
        # Set when there is something new to send, or nothing will come any more.
        self._has_news = asyncio.Event()
        self._is_fed = False
        # Loop time at which the caller last asked for an answer after having got one.
        self._progress_at = 0.0

    async def run(self, pushes: Iterable[Push] | AsyncIterable[Push]) -> AsyncGenerator[PushReply, None]:
        """Push everything; yield one reply per push, in order. See Publisher.stream()."""
        loop = asyncio.get_running_loop()
        feeder = asyncio.create_task(self._feed(pushes))
        try:
            while await self._wait_work():
                failure: PushError | None = None
                cursor = _Cursor()
                try:
                    async with contextlib.aclosing(self._attempt(cursor)) as replies:
                        async for reply in replies:
                            self._backoff.reset()
                            yield reply
                            self._progress_at = loop.time()
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    failure = push_failure(self._url, error)
                except PushError as error:
                    if not is_worth_retrying(error):
                        raise
                    failure = error
                self._lose(cursor, failure)
                for reply in self._take_lost(_Cursor()):
                    yield reply
                if self._unanswered:
                    await self._pause(failure)
            # The caller's iterator may have failed; what came before it was pushed.
            await feeder
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)

    async def _feed(self, pushes: Iterable[Push] | AsyncIterable[Push]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with contextlib.aclosing(_each(pushes)) as each:
                async for push in each:
                    push_id = push.own_id()
                    data = push.encode_line(push_id)
                    await self._slots.acquire()
                    self._unanswered.append(_Line(push_id, data, loop.time()))
                    self._has_news.set()
        finally:
            self._is_fed = True
            self._has_news.set()

    async def _wait_work(self) -> bool:
        """Whether there is something to send; a request is opened only then."""
        while not self._unanswered and not self._is_fed:
            self._has_news.clear()
            await self._has_news.wait()
        return bool(self._unanswered)

    async def _pause(self, failure: PushError | None) -> None:
        """Wait before the next attempt, unless the time is up."""
        delay_s = self._backoff.next_s()
        first = self._unanswered[0]
        silent_s = asyncio.get_running_loop().time() - max(self._progress_at, first.taken_at)
        fault = failure or PushTimeoutError("the server ended the stream without an answer", first.push_id)
        if silent_s + delay_s >= self._options.timeout_s:
            raise fault
        if self._on_retry is not None:
            self._on_retry(fault)
        await asyncio.sleep(delay_s)

    def _lose(self, cursor: _Cursor, failure: PushError | None) -> None:
        """A request has ended: what it has sent without an id may have been done."""
        if failure is not None and not is_doubtful(failure):
            return
        loss = failure or PushTimeoutError("the server ended the stream without an answer")
        for index in range(min(cursor.sent, len(self._unanswered))):
            line = self._unanswered[index]
            if not line.push_id and line.loss is None:
                self._unanswered[index] = msgspec.structs.replace(line, data=b"", loss=loss)

    def _take_lost(self, cursor: _Cursor) -> list[PushReply]:
        """Replies of the lost pushes whose turn it is."""
        replies = []
        while self._unanswered and (loss := self._unanswered[0].loss) is not None:
            self._unanswered.popleft()
            cursor.sent = max(cursor.sent - 1, 0)
            self._slots.release()
            replies.append(PushReply("", [], [], loss))
        return replies

    # -- one request

    async def _attempt(self, cursor: _Cursor) -> AsyncGenerator[PushReply, None]:
        """Send everything unanswered and what follows; yield until the server or the pushes end."""
        async with asyncio.timeout(self._options.attempt_timeout_s):
            response = await self._session.post(
                self._url, data=self._body(cursor), headers=_NDJSON, timeout=aiohttp.ClientTimeout(total=None)
            )
        async with response:
            if response.status != 200:
                reply = parse_answer(await response.read(), "", response.status)
                raise reply.error or ServerError(f"{self._url} answered HTTP {response.status}")
            async with contextlib.aclosing(self._answers(response.content)) as answers:
                async for answer in answers:
                    if not cursor.sent:
                        raise ServerError("the server answered a push that was not sent")
                    line = self._unanswered.popleft()
                    cursor.sent -= 1
                    self._slots.release()
                    yield parse_answer(answer, line.push_id)
                    for reply in self._take_lost(cursor):
                        yield reply

    async def _body(self, cursor: _Cursor) -> AsyncIterator[bytes]:
        while True:
            if cursor.sent < len(self._unanswered):
                lines = [line.data for line in islice(self._unanswered, cursor.sent, None)]
                cursor.sent += len(lines)
                # Nothing at all would end the body.
                if data := b"".join(lines):
                    yield data
            elif self._is_fed:
                return
            else:
                self._has_news.clear()
                await self._has_news.wait()

    async def _answers(self, content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
        """Lines of the response until it ends."""
        buffer = bytearray()
        while chunk := await self._read(content):
            buffer += chunk
            if b"\n" in chunk:
                *lines, rest = buffer.split(b"\n")
                for line in lines:
                    if line.strip():
                        yield bytes(line)
                buffer = rest
            if len(buffer) > _MAX_ANSWER_BYTES:
                raise ServerError("the server sent an answer without an end")

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        """The next bytes; waits without end only while nothing is unanswered.

        Raises:
            TimeoutError: the server owes an answer for too long.
        """
        loop = asyncio.get_running_loop()
        timeout_s = self._options.attempt_timeout_s
        began_at = loop.time()
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    return await content.readany()
            except TimeoutError:
                if (
                    self._unanswered
                    and loop.time() - max(began_at, self._unanswered[0].taken_at) >= timeout_s
                ):
                    raise


class _Cursor:
    """How many of the unanswered pushes one request has sent.

    Each request has its own: the body of one that broke may linger for a turn.
    """

    def __init__(self) -> None:
        self.sent = 0


async def _each(pushes: Iterable[Push] | AsyncIterable[Push]) -> AsyncGenerator[Push, None]:
    if isinstance(pushes, AsyncIterable):
        async for push in pushes:
            yield push
        return
    for push in pushes:
        yield push
