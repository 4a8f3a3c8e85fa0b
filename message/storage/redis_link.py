"""One connection to a Redis server: many calls in flight, written together at the end of a loop turn.

Connects by itself, again and again, for as long as there is something to
send. Decides what a failure means for a call: refused before it was written
= surely not done; written and not answered = in doubt.

The driver (redis-py) logs in, selects, speaks TLS and reads answers; its
pools and pipelines are not used, because they wait for the answers of one
pipeline before they send the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError

from cluster.errors import EnckeError, InDoubtError, StorageError, UnavailableError
from message.config import RedisSettings
from message.storage.redis_scripts import Script

_log = logging.getLogger(__name__)

# Calls that share a write. More would hold the loop for milliseconds while they are packed.
MAX_PIPELINE = 256

OnConnect = Callable[[AbstractConnection], Awaitable[None]]


class Call:
    """One script call, and who waits for it."""

    __slots__ = ("arguments", "future", "has_body", "script", "sent_at")

    def __init__(self, script: Script, arguments: tuple[bytes, ...], future: asyncio.Future[Any]) -> None:
        self.script = script
        # Number of keys, keys, arguments.
        self.arguments = arguments
        self.future = future
        # The server did not know the script: send its text.
        self.has_body = False
        # Loop time of the write.
        self.sent_at = 0.0

    def pack(self, parts: list[bytes]) -> None:
        """Add the call in the server's protocol."""
        name = (b"EVAL", self.script.body) if self.has_body else (b"EVALSHA", self.script.sha)
        parts.append(b"*%d\r\n" % (len(self.arguments) + 2))
        for argument in (*name, *self.arguments):
            parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))


class RedisLink:
    """A connection that comes back. Belongs to one event loop."""

    def __init__(
        self, url: str, name: str, settings: RedisSettings, scripts: Iterable[Script], on_connect: OnConnect
    ) -> None:
        """Make it; nothing is connected before the first call.

        Args:
            name: of the server, for logs and errors; without secrets.
            on_connect: called with each new connection before it is used; may ask what it wants.

        Raises:
            ValueError: the URL is wrong.
        """
        self._name = name
        self._settings = settings
        self._scripts = list(scripts)
        self._on_connect = on_connect
        # Only a factory of connections.
        self._factory: Any = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.connect_timeout_s,
            client_name="encke",
        )
        self._waiting: deque[Call] = deque()
        self._flying: deque[Call] = deque()
        self._connection: AbstractConnection | None = None
        self._has_work = asyncio.Event()
        self._is_flushing = False
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        # Connecting has failed and was logged.
        self._is_down = False
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
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._close(UnavailableError("the store is not open"))

    def call(self, script: Script, *arguments: bytes) -> asyncio.Future[Any]:
        """Call a script; the future holds what it returns.

        Args:
            arguments: number of keys, keys, arguments.

        Ordering: calls are executed in the order in which they were asked for.

        Raises (through the future):
            UnavailableError: not sent. InDoubtError: sent, not answered. StorageError: refused.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(Call(script, arguments, future))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._is_flushing = False
        connection = self._connection
        if connection is None or connection._writer is None:
            self._has_work.set()
            return
        now = self._loop.time()
        while self._waiting:
            parts: list[bytes] = []
            for _ in range(min(len(self._waiting), MAX_PIPELINE)):
                call = self._waiting.popleft()
                call.sent_at = now
                call.pack(parts)
                self._flying.append(call)
            connection._writer.write(b"".join(parts))
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
            except (RedisError, OSError, TimeoutError) as error:
                await self._on_failed_connect(error)
                continue
            if self._is_down:
                self._is_down = False
                _log.info("redis is back: %s", self._name)
            self._connection = connection
            self._flush()
            await self._read(connection)

    async def _connect(self) -> AbstractConnection:
        made: Any = self._factory.make_connection()
        connection: AbstractConnection = made
        try:
            await made.connect()
            await self._on_connect(connection)
            for script in self._scripts:
                await connection.send_command("SCRIPT", "LOAD", script.body)
            for _ in self._scripts:
                await connection.read_response()
        except BaseException:
            await _drop(connection)
            raise
        return connection

    async def _on_failed_connect(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if not self._is_down:
            self._is_down = True
            _log.error(
                "redis does not answer, messages of its keys are not stored: %s: %s", self._name, reason
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
            await self._close(InDoubtError(f"the connection to redis broke: {self._name}: {reason}"))
        if self._waiting:
            self._has_work.set()

    async def _answer_all(self, connection: AbstractConnection) -> None:
        while True:
            try:
                answer = await connection.read_response(disable_decoding=True, timeout=math.inf)
            except NoScriptError:
                # Somebody emptied the server's scripts (SCRIPT FLUSH). Not executed.
                call = self._flying.popleft()
                call.has_body = True
                self._waiting.append(call)
                self._flush()
                continue
            except ResponseError as error:
                answer = StorageError(f"redis refused: {error}")
            future = self._flying.popleft().future
            if self._is_stopping and not self._flying:
                self._has_work.set()
            if future.done():
                continue
            if isinstance(answer, StorageError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

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
            _log.warning("redis did not answer within %s s: %s", self._settings.timeout_s, self._name)
            _abort(self._connection)

    async def _close(self, reason: EnckeError) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await _drop(connection)
        self._fail(self._flying, reason)
        if self._is_stopping:
            self._fail(self._waiting, UnavailableError("the store is not open"))

    def _fail(self, calls: deque[Call], reason: EnckeError) -> None:
        while calls:
            future = calls.popleft().future
            if not future.done():
                future.set_exception(reason)


def _abort(connection: AbstractConnection) -> None:
    # A close would wait for a server that has stopped to take what was written.
    if connection._writer is not None:
        connection._writer.transport.abort()


async def _drop(connection: AbstractConnection) -> None:
    _abort(connection)
    await connection.disconnect(nowait=True)
