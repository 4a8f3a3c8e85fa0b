"""One connection to a Redis server: many calls in flight, written together at the end of a loop turn.

Connects by itself, again and again, for as long as there is something to
send. Decides what a failure means for a call: refused before it was written
= surely not done; written and not answered = in doubt.

The driver (redis-py) logs in, selects and speaks TLS. Its pools and pipelines
are not used, because they wait for the answers of one pipeline before they send
the next; answers are read with its parser (hiredis), but not through its
read_response(), which is a chain of coroutines for each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

from cluster.errors import EnckeError, InDoubtError, StorageError, UnavailableError
from message.storage.checks import not_open
from message.storage.outage import Outage
from message.storage.redis.config import RedisSettings
from message.storage.redis.driver import abort, connection_factory, drop
from message.storage.redis.requests import Call, OnAnswer, answer_future, pack_arguments
from message.storage.redis.scripts import Script

log = logging.getLogger(__name__)

# Calls that share a write. More would hold the loop for milliseconds while they are packed.
MAX_PIPELINE = 256

# The parser has no complete answer.
_MORE = object()

# Read at once.
READ_BYTES = 256 * 1024

OnConnect = Callable[[AbstractConnection], Awaitable[None]]


class RedisLink:
    """A connection that comes back. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        name: str,
        settings: RedisSettings,
        scripts: Iterable[Script],
        on_connect: OnConnect,
        on_refusal: Callable[[str], None],
        outage: Outage,
    ) -> None:
        """Make it; nothing is connected before the first call.

        Args:
            name: of the server, for logs and errors; without secrets.
            on_connect: called with each new connection before it is used; may ask what it wants.
            on_refusal: called with the server's words when it refuses a call.
            outage: the server's.

        Raises:
            ValueError: the URL is wrong.
        """
        self._name = name
        self._settings = settings
        self._scripts = list(scripts)
        self._on_connect = on_connect
        self._on_refusal = on_refusal
        self._factory = connection_factory(url, settings)
        self._waiting: deque[Call] = deque()
        self._flying: deque[Call] = deque()
        self._connection: AbstractConnection | None = None
        self._has_work = asyncio.Event()
        self._is_flushing = False
        self._is_stopping = False
        # What is asked for from now on needs another connection.
        self._is_stale = False
        self._task: asyncio.Task[None] | None = None
        self._outage = outage
        self._watch: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; connects at the first call."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name=f"redis {self._name}")

    async def stop(self) -> None:
        """Finish what was asked for, as far as the server answers, and close."""
        self._is_stopping = True
        self._has_work.set()
        if self._task is not None:
            limit_s = self._settings.timeout_s + self._settings.connect_timeout_s
            done, _ = await asyncio.wait([self._task], timeout=limit_s)
            if not done:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._close(not_open())

    def call(self, script: Script, *arguments: bytes) -> asyncio.Future[Any]:
        """Call a script; the future holds what it returns.

        Args:
            arguments: number of keys, keys, arguments.

        Ordering: calls are executed in the order in which they were asked for.

        Raises (through the future):
            UnavailableError: not sent. InDoubtError: sent, not answered. StorageError: refused.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(script, len(arguments), pack_arguments(arguments), partial(answer_future, future))
        return future

    def send(self, script: Script, count: int, packed: bytes, on_answer: OnAnswer) -> None:
        """Call a script without a future, for what is asked often.

        Args:
            count: of the arguments as call() takes them.
            packed: those, see pack_arguments().
            on_answer: is called with what the script returns or, as a value, the error that call() raises.
                Must not raise.
        """
        self._waiting.append(Call(script, count, packed, on_answer))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def renew(self) -> None:
        """Connect anew when what was sent is answered: the server's name may lead to another one now."""
        self._is_stale = True
        if self._connection is not None and not self._flying:
            abort(self._connection)

    def _flush(self) -> None:
        self._is_flushing = False
        writer = None if self._connection is None or self._is_stale else self._connection._writer
        if writer is None or writer.transport.is_closing():
            # What is not written is not in doubt; _read() goes on with it.
            self._has_work.set()
            return
        now = self._loop.time()
        while self._waiting:
            parts: list[bytes] = []
            for _ in range(min(len(self._waiting), MAX_PIPELINE)):
                call = self._waiting.popleft()
                call.sent_at = now
                parts.append(call.pack())
                self._flying.append(call)
            writer.write(b"".join(parts))
        if self._flying and self._watch is None:
            self._watch_oldest()

    async def _run(self) -> None:
        """Connect whenever there is something to send; read answers until the connection ends."""
        while not (self._is_stopping and not self._waiting):
            await self._has_work.wait()
            self._has_work.clear()
            if not self._waiting:
                continue
            try:
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    connection = await self._connect()
            except Exception as error:
                # Whatever it is, also what no Redis answers (a proxy's words): calls wait for this task.
                await self._on_failed_connect(error)
                continue
            if self._outage.end():
                log.info("redis is back: server=%s", self._name)
            self._connection, self._is_stale = connection, False
            self._flush()
            await self._read(connection)
            if self._is_stale and not self._is_stopping:
                # Not as fast as calls come, while the name still leads to the same server.
                await asyncio.sleep(self._settings.retry_s)

    async def _connect(self) -> AbstractConnection:
        made: Any = self._factory.make_connection()
        connection: AbstractConnection = made
        try:
            await made.connect()
            for script in self._scripts:
                await connection.send_command("SCRIPT", "LOAD", script.body)
            for _ in self._scripts:
                await connection.read_response()
            await self._on_connect(connection)
        except BaseException:
            await drop(connection)
            raise
        return connection

    async def _on_failed_connect(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if self._outage.begin(reason):
            log.error(
                "redis does not answer, messages of its keys are not stored: server=%s reason=%s",
                self._name,
                reason,
            )
        self._fail(self._waiting, UnavailableError(f"redis does not answer: {self._name}"))
        if not self._is_stopping:
            await asyncio.sleep(self._settings.retry_s)
        if self._waiting:
            self._has_work.set()

    async def _read(self, connection: AbstractConnection) -> None:
        """Hand out answers until the connection ends, or the last one of a link that stops."""
        reason = "closed"
        stopped = self._loop.create_task(self._wait_stopped())
        reading = self._loop.create_task(self._answer_all(connection))
        try:
            await asyncio.wait([reading, stopped], return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and (error := reading.exception()) is not None:
                reason = str(error)
        finally:
            for task in (reading, stopped):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            await drop(connection)
            self._close(InDoubtError(f"the connection to redis broke: {self._name}: {reason}"))
        if self._waiting:
            self._has_work.set()

    async def _answer_all(self, connection: AbstractConnection) -> None:
        # The driver's own has been left empty by the last answer that it was asked for.
        parser = hiredis.Reader(notEnoughData=_MORE)
        stream: Any = connection._reader
        try:
            while data := await stream.read(READ_BYTES):
                parser.feed(data)
                while (answer := parser.gets()) is not _MORE:
                    self._take(answer)
                if self._flying:
                    continue
                if self._is_stale:
                    return
                if self._is_stopping:
                    self._has_work.set()
        finally:
            # At once: what is asked for from now on waits for the next one and is not in doubt.
            self._connection = None

    def _take(self, answer: Any) -> None:
        """Hand the next answer out."""
        call = self._flying.popleft()
        if isinstance(answer, hiredis.ReplyError):
            words = str(answer)
            if words.startswith("NOSCRIPT"):
                self._send_body(call)
                return
            self._on_refusal(words)
            answer = StorageError(f"redis refused: {words}")
        call.on_answer(answer)

    def _send_body(self, call: Call) -> None:
        """Somebody emptied the server's scripts (SCRIPT FLUSH): the call was not executed."""
        call.has_body = True
        self._waiting.append(call)
        self._flush()

    async def _wait_stopped(self) -> None:
        """Return when the link stops and nothing is left to do."""
        while not self._is_stopping or self._flying or self._waiting:
            await self._has_work.wait()
            self._has_work.clear()

    def _watch_oldest(self) -> None:
        """Give the connection up when its oldest call has waited too long; else look again later."""
        self._watch = None
        if not self._flying:
            return
        left_s = self._flying[0].sent_at + self._settings.timeout_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._watch_oldest)
        elif self._connection is not None:
            log.warning(
                "redis did not answer in time: server=%s timeout_s=%g", self._name, self._settings.timeout_s
            )
            abort(self._connection)

    def _close(self, reason: EnckeError) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._fail(self._flying, reason)
        if self._is_stopping:
            self._fail(self._waiting, not_open())

    def _fail(self, calls: deque[Call], reason: EnckeError) -> None:
        while calls:
            calls.popleft().on_answer(reason)
