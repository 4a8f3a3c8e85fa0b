"""Pushes from a backend: one, many, or a stream, each stored once however often it is tried."""

from __future__ import annotations

import asyncio
import contextlib
import random
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

import aiohttp

from encke.client.backoff import Backoff
from encke.client.errors import PushError
from encke.client.failures import Attempt, attempt_tracing, push_failure
from encke.client.pushes import (
    Progress,
    Push,
    PushReply,
    PushResult,
    distinct,
    parse_answer,
)
from encke.client.stream import PushStream, StreamOptions
from encke.client.urls import checked_url

_JSON = {"Content-Type": "application/json"}
# Pushes are tried again sooner than subscriptions: a caller waits.
_BACKOFF_BASE_S = 0.1
_BACKOFF_MAX_S = 5.0
# An attempt that is cut sooner tells less than the one before it.
_SHORTEST_ATTEMPT_S = 0.05


class Publisher:
    """Pushes to the admin HTTP API of a server, over connections that stay open.

    ::

        async with Publisher("http://localhost:8091") as publisher:
            result = await publisher.push("alice", {"n": 1}, expire_s=600)

    Every push that is stored carries an id; when a connection breaks or the
    server is busy it is tried again with the same id until `timeout_s` is over,
    and is stored once all the same. One with expire_s 0 has only the id that
    you give it. Without, it is tried again where it was surely not done; when
    its answer is lost, PushTimeoutError is raised: it is done at most once.

    Cancellation: a cancelled push may or may not have been done; repeated with
    the same id it is done once. May be used by many tasks at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_s: float = 30.0,
        attempt_timeout_s: float = 10.0,
        max_connections: int = 100,
        on_retry: Callable[[PushError], None] | None = None,
    ) -> None:
        """Make a publisher; nothing is connected until the first push.

        Args:
            url: admin HTTP address of the server or of a balancer before several.
            token: the server's admin token, if it asks for one.
            timeout_s: for a push with all its attempts, from the moment when it is its turn.
            attempt_timeout_s: for one attempt; a server that is silent for longer is asked anew.
            max_connections: pushes in flight at a time; others wait their turn.
            on_retry: called with what went wrong when an attempt has failed, or has failed for some
                keys, and the next one is due. Must not block.

        Raises:
            ValueError: no HTTP URL, a time that is not above 0, or no connection at all.
        """
        if not (timeout_s > 0 and attempt_timeout_s > 0):
            raise ValueError("timeout_s and attempt_timeout_s must be above 0")
        if max_connections < 1:
            raise ValueError("max_connections must be at least 1")
        self._url = checked_url(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s
        self._attempt_timeout_s = attempt_timeout_s
        self._max_connections = max_connections
        self._on_retry = on_retry
        self._session: aiohttp.ClientSession | None = None
        # Before the connection pool, whose queue would count as time without an answer.
        self._turns = asyncio.Semaphore(max_connections)
        # Streams in progress: an abandoned `async for` does not end its generator.
        self._streams: weakref.WeakSet[AsyncGenerator[PushReply, None]] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        """Get ready; does not connect yet."""
        if self._session is not None:
            raise RuntimeError("a publisher can be entered once")
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=self._max_connections),
            timeout=aiohttp.ClientTimeout(total=self._attempt_timeout_s),
            trace_configs=[attempt_tracing()],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; see close()."""
        await self.close()

    async def close(self) -> None:
        """End all connections and streams. Pushes in flight fail. May be called again."""
        for stream in list(self._streams):
            # RuntimeError: another task is in it, and sees the session close.
            with contextlib.suppress(RuntimeError):
                await stream.aclose()
        if self._session is not None:
            await self._session.close()

    async def push(self, key: str, value: object, *, expire_s: int = 0, id: str = "") -> PushResult:  # noqa: A002
        """Push a value to one key.

        Args:
            value: anything that msgspec encodes as JSON; `msgspec.Raw(b"...")` is JSON already.
            expire_s: seconds in the store; 0 = whoever is online, nothing is stored.
            id: repeat a push of an earlier run with its id and it is stored
                once; "" = made up if the message is stored, else none. At most 128 bytes.

        Raises:
            PushError: refused, or the server could not do it until the time was up.
            PushTimeoutError: no answer until then; done or not.
            ServerError: the answer is not the protocol's.
            ValueError, TypeError: the key or the value is none.
        """
        reply = await self._push(Push(key, value, expire_s, id))
        if reply.failed:
            failure = reply.failed[0]
            raise PushError(failure.code, f"push to {key!r} failed", reply.push_id, 200)
        return reply.results[0]

    async def push_many(
        self,
        keys: Sequence[str],
        value: object,
        *,
        expire_s: int = 0,
        id: str = "",  # noqa: A002
    ) -> PushReply:
        """Push a value to many keys; those that failed for good are in the reply's `failed`.

        Keys that fail for a moment are tried again, alone. Arguments and
        errors as push(); it raises when the push as a whole failed.

        Returns:
            Results and failures in the order of the keys, each key once.
        """
        keys = distinct(keys)
        if not keys:
            return PushReply(id, [], [])
        return await self._push(Push(keys, value, expire_s, id))

    def stream(
        self, pushes: Iterable[Push] | AsyncIterable[Push], *, max_in_flight: int = 256
    ) -> AsyncGenerator[PushReply, None]:
        """Push a stream of values over one request; the cheapest way to push much.

        ::

            async for reply in publisher.stream(pushes):
                ...

        Replies come in the order of the pushes. A push that fails has its
        error in its reply and does not stop the others, nor is it tried again,
        because later ones have overtaken it. When the connection breaks,
        everything unanswered is sent again, with the same ids and in the same
        order; what has no id (expire_s 0) and may have been done has
        PushTimeoutError in its reply instead. `pushes` is read as answers come in and never by more than
        max_in_flight ahead.

        Cancellation: stops reading `pushes`; up to max_in_flight pushes may or
        may not have been done. After a `break` the stream ends with the
        publisher, or at once with `contextlib.aclosing`.

        Raises:
            PushError: the request as a whole was refused.
            PushTimeoutError: no answer for timeout_s.
            ServerError: the answers are not the protocol's.
        """
        options = StreamOptions(max_in_flight, self._timeout_s, self._attempt_timeout_s)
        stream = PushStream(
            self._open_session(),
            f"{self._url}/2/admin/push/stream",
            Backoff(_BACKOFF_BASE_S, _BACKOFF_MAX_S, random.random),
            options,
            self._on_retry,
        )
        replies = stream.run(pushes)
        self._streams.add(replies)
        return replies

    async def _push(self, push: Push) -> PushReply:
        """Wait for a turn, then try until every key has succeeded or failed for good, or the time is up."""
        session = self._open_session()
        async with self._turns:
            return await self._try(session, push)

    async def _try(self, session: aiohttp.ClientSession, push: Push) -> PushReply:
        push_id = push.own_id()
        progress = Progress(push_id, [push.keys] if isinstance(push.keys, str) else push.keys)
        backoff = Backoff(_BACKOFF_BASE_S, _BACKOFF_MAX_S, random.random)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            body = push.encode(push_id, progress.pending)
            progress.take(await self._attempt(session, body, push_id, deadline - loop.time()))
            delay_s = backoff.next_s()
            if progress.is_over or loop.time() + delay_s + _SHORTEST_ATTEMPT_S >= deadline:
                return progress.reply()
            if self._on_retry is not None:
                self._on_retry(progress.fault())
            await asyncio.sleep(delay_s)

    async def _attempt(
        self, session: aiohttp.ClientSession, body: bytes, push_id: str, time_left_s: float
    ) -> PushReply:
        url = f"{self._url}/2/admin/push"
        # Never none at all, also when we were woken late: to aiohttp that is no limit.
        total_s = max(_SHORTEST_ATTEMPT_S, min(self._attempt_timeout_s, time_left_s))
        timeout = aiohttp.ClientTimeout(total=total_s)
        attempt = Attempt()
        try:
            async with session.post(
                url, data=body, headers=_JSON, timeout=timeout, trace_request_ctx=attempt
            ) as response:
                return parse_answer(await response.read(), push_id, response.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            failure = push_failure(self._url, error, push_id, was_connected=attempt.has_connection)
            return PushReply(push_id, [], [], failure)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("enter the publisher first: async with Publisher(...) as publisher")
        return self._session
