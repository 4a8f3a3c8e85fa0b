"""The calls of one peer: begun in the order in which they came, answered once, bounded.

Handlers return a future or are coroutines. A future belongs to its handler:
nothing here cancels it. A coroutine runs in a task of ours and is cancelled at
the deadline of its call, because nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from functools import partial
from typing import Any

import msgspec

from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    LocalProtocolError,
    OverloadedError,
    RemoteProtocolError,
    TooLargeError,
    UnavailableError,
)
from cluster.rpc.config import RpcConfig
from cluster.rpc.deadlines import Deadlines
from cluster.rpc.faults import to_fault
from cluster.rpc.frames import FAULT, FRAME_HEAD, HEAD, REPLY, REQUEST, REQUEST_HEAD, frame_head
from cluster.rpc.link import Link
from cluster.rpc.methods import Method, Route
from cluster.rpc.metrics import ServerMetrics

log = logging.getLogger(__name__)


class CallInProgress(msgspec.Struct, eq=False):
    """A call that a handler works on. A struct: made in a third of the time of a class."""

    number: int
    method: Method[Any]
    # Loop time.
    deadline: float
    # Bytes of the request.
    size: int
    # Of the handler; a task when it is a coroutine.
    future: asyncio.Future[Any]
    # With an error, at its deadline; what the handler says later is dropped.
    is_answered: bool = False


class Dispatcher:
    """Carries out what arrives on a link whose peer is known."""

    def __init__(
        self,
        link: Link,
        routes: dict[int, Route],
        tasks: set[asyncio.Task[Any]],
        config: RpcConfig,
        metrics: ServerMetrics,
    ) -> None:
        """Prepare.

        Args:
            tasks: the server's; those of coroutines are added, so that it can end them.
        """
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._link = link
        self._routes = routes
        self._tasks = tasks
        self._config = config
        self._begun, self._errors = metrics.calls, metrics.errors
        self._max_payload_bytes = config.max_frame_bytes - HEAD.size
        self._max_calls, self._max_call_bytes = config.max_calls, config.max_call_bytes
        self.is_draining = False
        # By the peer's number. A call stays until its handler is done, also when
        # its deadline has passed or the peer has gone: it still uses this node.
        self._calls: dict[int, CallInProgress] = {}
        self._call_bytes = 0
        self._deadlines = Deadlines(self._loop, self._expire)
        # Frames that wait until the coroutines of calls before them have begun.
        self._deferred: list[bytes] = []
        # A coroutine was handed to the loop and may not have begun.
        self._has_spawned = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._idle: asyncio.Future[None] | None = None

    @property
    def in_progress(self) -> int:
        """Calls that handlers work on."""
        return len(self._calls)

    async def wait_idle(self) -> None:
        """Return when no call is in progress. Cancelling is safe."""
        while self._calls:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    def on_lost(self) -> None:
        """The peer has gone; its calls go on."""
        if not self._calls:
            self._deadlines.cancel()

    def on_frames(self, frames: list[bytes]) -> None:
        """Begin the calls that have arrived.

        Raises:
            RemoteProtocolError, struct.error, msgspec.DecodeError: the peer breaks the protocol.
        """
        calls, find_route, unpack = self._calls, self._routes.get, REQUEST_HEAD.unpack_from
        for frame in frames:
            kind, number, method_number, timeout_ms = unpack(frame)
            if kind != REQUEST or number in calls:
                raise RemoteProtocolError(f"unexpected frame of kind {kind} for call {number}")
            route = find_route(method_number)
            if route is None:
                self._fault(number, LocalProtocolError(f"no method has the number {method_number}"))
            elif self._deferred or (self._has_spawned and not route.is_coroutine):
                self._defer(frame)
            elif self.is_draining:
                self._fault(number, UnavailableError("this node is stopping"))
            elif not timeout_ms:
                self._fault(number, DeadlinePassedError(f"{route.method.name}: no time left"))
            elif (
                # Only then it can be; asked for every call, so without another one.
                (len(calls) >= self._max_calls or self._call_bytes + len(frame) > self._max_call_bytes)
                and self._config.is_full(len(calls), self._call_bytes, len(frame))
            ):
                self._fault(number, OverloadedError("too many calls in progress"))
            else:
                self._begin(route, number, timeout_ms, frame)

    def _defer(self, frame: bytes) -> None:
        """Let the coroutines of earlier calls begin first: a deletion comes before the save behind it."""
        if not self._deferred:
            # Behind the first steps of the tasks, which are in the loop's queue already.
            self._loop.call_soon(self._go_on)
        self._deferred.append(frame)

    def _go_on(self) -> None:
        frames, self._deferred = self._deferred, []
        self._has_spawned = False
        self._link.deliver(frames)

    def _begin(self, route: Route, number: int, timeout_ms: int, frame: bytes) -> None:
        method = route.method
        self._begun.value += 1
        try:
            # 15 = REQUEST_HEAD.size
            arguments = method.decode_arguments(frame[15:])
        except (msgspec.ValidationError, RecursionError) as error:
            # Bytes that are no msgpack at all end the connection instead.
            self._fault(number, LocalProtocolError(f"{method.name}: {error}"))
            return
        try:
            future = route.handler(*arguments)
            if not isinstance(future, asyncio.Future):
                future = self._spawn(future)
        except Exception as error:
            self._fault(number, _presentable(method, error))
            return
        if future.done():
            # A push to idle keys, for one. It never was in progress.
            self._answer(number, method, future)
            return
        deadline = self._now() + timeout_ms / 1000
        size = len(frame)
        call = self._calls[number] = CallInProgress(number, method, deadline, size, future)
        self._call_bytes += size
        future.add_done_callback(partial(self._finish, call))
        if deadline < self._deadlines.next_at:
            self._deadlines.wake_at(deadline)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._has_spawned = True
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- ends

    def _finish(self, call: CallInProgress, future: asyncio.Future[Any]) -> None:
        """The handler is done: answer, and make room for another call."""
        del self._calls[call.number]
        self._call_bytes -= call.size
        if call.is_answered or not self._link.is_open:
            # Looked at all the same: the loop reports exceptions that nobody has seen.
            if not future.cancelled():
                future.exception()
        else:
            self._answer(call.number, call.method, future)
        if not self._calls:
            self._become_idle()

    def _answer(self, number: int, method: Method[Any], future: asyncio.Future[Any]) -> None:
        try:
            payload = self._encode(future.result())
        except asyncio.CancelledError:
            self._fault(number, method.answer_lost("given up by the peer"))
            return
        except Exception as error:
            self._fault(number, _presentable(method, error))
            return
        if len(payload) > self._max_payload_bytes:
            text = f"answer over {self._max_payload_bytes} bytes"
            self._fault(number, TooLargeError(text) if method.is_read else InDoubtError(text))
            return
        # As frame_head() does.
        self._link.send(FRAME_HEAD.pack(len(payload) + 9, REPLY, number), payload)

    def _fault(self, number: int, error: EnckeError) -> None:
        self._errors.inc(error.code)
        payload = self._encode(to_fault(error))
        self._link.send(frame_head(len(payload), FAULT, number), payload)

    def _expire(self, now: float) -> float:
        following = math.inf
        for call in list(self._calls.values()):
            if call.is_answered:
                continue
            if call.deadline > now:
                following = min(following, call.deadline)
                continue
            call.is_answered = True
            if self._link.is_open:
                self._fault(call.number, call.method.answer_lost("not done in time"))
            if call.future in self._tasks:
                call.future.cancel()
        return following

    def _become_idle(self) -> None:
        if not self._link.is_open:
            self._deadlines.cancel()
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None


def _presentable(method: Method[Any], error: BaseException) -> EnckeError:
    """An error as the peer may see it: the details of a bug stay in our log."""
    if isinstance(error, EnckeError):
        return error
    log.error("call failed: method=%s", method.name, exc_info=error)
    return EnckeError(f"{method.name}: internal error")
