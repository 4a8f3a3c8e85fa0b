"""One peer of a server: lets it in, then carries out its calls. See server.py."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cluster.errors import (
    EnckeError,
    InDoubtError,
    LocalProtocolError,
    RemoteProtocolError,
    TooLargeError,
    UnavailableError,
)
from cluster.rpc.config import RpcConfig
from cluster.rpc.deadlines import Deadlines
from cluster.rpc.faults import to_fault
from cluster.rpc.frames import FAULT, GOODBYE, HEAD, REPLY, REQUEST, REQUEST_HEAD, frame_head
from cluster.rpc.handshake import NONCE_BYTES, ServerHandshake, Versions
from cluster.rpc.link import Link
from cluster.rpc.methods import Method, Route

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What the sessions of a server share."""

    service: str
    routes: dict[int, Route]
    config: RpcConfig
    versions: Versions
    sessions: set[Session] = field(default_factory=set)
    # Handlers that are coroutines, also those whose peer has gone.
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)


class CallInProgress:
    """A call that a handler works on."""

    __slots__ = ("deadline", "future", "is_answered", "method", "number", "session", "size")

    def __init__(
        self,
        session: Session,
        number: int,
        method: Method[Any],
        deadline: float,
        size: int,
        future: asyncio.Future[Any],
    ) -> None:
        self.session = session
        self.number = number
        self.method = method
        # Loop time.
        self.deadline = deadline
        # Bytes of the request.
        self.size = size
        # Of the handler; a task when it is a coroutine.
        self.future = future
        # With an error, at its deadline; what the handler says later is dropped.
        self.is_answered = False

    def on_done(self, future: asyncio.Future[Any]) -> None:
        """Take the handler's result."""
        self.session.finish(self, future)


class Session:
    """A connection of a peer and its calls in progress."""

    def __init__(self, context: ServerContext) -> None:
        """Wait for the peer to introduce itself. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._routes = context.routes
        self._config = context.config
        self._handshake = ServerHandshake(
            context.service, context.versions, context.config.secret, os.urandom(NONCE_BYTES)
        )
        self.link = Link(context.config, is_server=True)
        self.link.on_made = self._on_made
        self.link.on_frames = self._on_handshake
        self.link.on_lost = self._on_lost
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._is_known = False
        self._is_draining = False
        # By the peer's number. A call stays until its handler is done, also when
        # its deadline has passed or the peer has gone: it still uses this node.
        self._calls: dict[int, CallInProgress] = {}
        self._call_bytes = 0
        self._max_payload_bytes = context.config.max_frame_bytes - HEAD.size
        self._deadlines = Deadlines(self._loop, self._expire)
        self._encode = msgspec.msgpack.Encoder().encode
        self._idle: asyncio.Future[None] | None = None

    @property
    def in_progress(self) -> int:
        """Calls that handlers work on."""
        return len(self._calls)

    def drain(self) -> None:
        """Tell the peer to make no more calls; refuse those that it makes."""
        if not self._is_draining:
            self._is_draining = True
            if self._is_known:
                self.link.send(frame_head(0, GOODBYE, 0), b"")

    async def wait_idle(self) -> None:
        """Return when no call is in progress. Cancelling is safe."""
        while self._calls:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    # -- connection

    def _on_made(self) -> None:
        sessions = self._context.sessions
        if len(sessions) >= self._config.max_connections:
            log.warning("connection refused: peer=%s reason=%d are connected", self.link.peer, len(sessions))
            self.link.abort(UnavailableError("too many connections"))
            return
        sessions.add(self)
        late = UnavailableError(f"no handshake within {self._config.handshake_s} s")
        self._handshake_timer = self._loop.call_later(self._config.handshake_s, self.link.abort, late)

    def _on_handshake(self, frames: list[bytes]) -> None:
        for index, frame in enumerate(frames, 1):
            self.link.send_body(self._handshake.receive(frame))
            if self._handshake.refusal is not None:
                self.link.close(UnavailableError(f"refused: {self._handshake.refusal}"))
                return
            if self._handshake.version is not None:
                self._let_in(frames[index:])
                return

    def _let_in(self, rest: list[bytes]) -> None:
        self._cancel_timer()
        self._is_known = True
        self.link.accept_large_frames()
        self.link.on_frames = self._on_requests
        log.debug("peer connected: peer=%s", self.link.peer)
        if self._is_draining:
            self.link.send(frame_head(0, GOODBYE, 0), b"")
        if rest:
            self._on_requests(rest)

    def _on_lost(self, reason: Exception) -> None:
        self._cancel_timer()
        if not self._calls:
            self._deadlines.cancel()
        self._context.sessions.discard(self)
        # Unknown peers are not worth more: a port scan must not fill the log.
        level = logging.INFO if self._is_known else logging.DEBUG
        log.log(level, "peer gone: peer=%s reason=%r", self.link.peer, str(reason))

    def _cancel_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    # -- calls

    def _on_requests(self, frames: list[bytes]) -> None:
        for frame in frames:
            kind, number, method_number, timeout_ms = REQUEST_HEAD.unpack_from(frame)
            if kind != REQUEST or number in self._calls:
                raise RemoteProtocolError(f"unexpected frame of kind {kind} for call {number}")
            route = self._routes.get(method_number)
            if route is None:
                self._fault(number, LocalProtocolError(f"no method has the number {method_number}"))
            elif self._is_draining:
                self._fault(number, UnavailableError("this node is stopping"))
            elif self._calls and self._is_full(len(frame)):
                self._fault(number, UnavailableError("too many calls in progress"))
            else:
                self._begin(route, number, timeout_ms, frame)

    def _is_full(self, size: int) -> bool:
        """Whether there is no room for one more call. A single one always has its chance."""
        is_over = self._call_bytes + size > self._config.max_call_bytes
        return is_over or len(self._calls) >= self._config.max_calls

    def _begin(self, route: Route, number: int, timeout_ms: int, frame: bytes) -> None:
        method = route.method
        try:
            arguments = method.decode_arguments(frame[REQUEST_HEAD.size :])
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
        deadline = self._loop.time() + timeout_ms / 1000
        call = CallInProgress(self, number, method, deadline, len(frame), future)
        self._calls[number] = call
        self._call_bytes += call.size
        future.add_done_callback(call.on_done)
        if deadline < self._deadlines.next_at:
            self._deadlines.wake_at(deadline)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._context.tasks.add(task)
        task.add_done_callback(self._context.tasks.discard)
        return task

    def finish(self, call: CallInProgress, future: asyncio.Future[Any]) -> None:
        """The handler is done: answer, and make room for another call."""
        del self._calls[call.number]
        self._call_bytes -= call.size
        if call.is_answered or not self.link.is_open:
            # Looked at all the same: the loop reports exceptions that nobody has seen.
            if not future.cancelled():
                future.exception()
        else:
            self._answer(call.number, call.method, future)
        if not self._calls:
            self._become_idle()

    def _answer(self, number: int, method: Method[Any], future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._fault(number, method.answer_lost("given up by the peer"))
            return
        error = future.exception()
        if error is not None:
            self._fault(number, _presentable(method, error))
            return
        try:
            payload = self._encode(future.result())
        except Exception as bug:
            self._fault(number, _presentable(method, bug))
            return
        if len(payload) > self._max_payload_bytes:
            text = f"answer over {self._max_payload_bytes} bytes"
            self._fault(number, TooLargeError(text) if method.is_read else InDoubtError(text))
            return
        self.link.send(frame_head(len(payload), REPLY, number), payload)

    def _fault(self, number: int, error: EnckeError) -> None:
        payload = self._encode(to_fault(error))
        self.link.send(frame_head(len(payload), FAULT, number), payload)

    def _expire(self, now: float) -> float:
        following = math.inf
        for call in list(self._calls.values()):
            if call.is_answered:
                continue
            if call.deadline > now:
                following = min(following, call.deadline)
                continue
            call.is_answered = True
            if self.link.is_open:
                self._fault(call.number, call.method.answer_lost("not done in time"))
            # A future belongs to the handler: a save that has begun is not undone.
            # A task is ours, and nobody waits for it any more.
            if call.future in self._context.tasks:
                call.future.cancel()
        return following

    def _become_idle(self) -> None:
        if not self.link.is_open:
            self._deadlines.cancel()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
            self._idle = None


def _presentable(method: Method[Any], error: BaseException) -> EnckeError:
    """An error as the peer may see it: the details of a bug stay in our log."""
    if isinstance(error, EnckeError):
        return error
    log.error("call failed: method=%s", method.name, exc_info=error)
    return EnckeError(f"{method.name}: internal error")
