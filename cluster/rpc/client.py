"""Calls to one peer: many in flight on one connection, each with a deadline and a definite end.

What a failed call says is exact. Surely not carried out: UnavailableError (not
sent, or the peer refused it), DeadlinePassedError, TooLargeError. May have been
carried out: InDoubtError, and for methods that only read UnavailableError. A
call made while the connection is being dialled waits for it; after an attempt
has failed calls fail at once, so that the caller can choose another peer.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, TypeVar

import msgspec

from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    LocalProtocolError,
    RemoteProtocolError,
    TooLargeError,
    UnavailableError,
)
from cluster.rpc.config import RpcConfig
from cluster.rpc.connector import Connector, State, Target
from cluster.rpc.deadlines import Deadlines
from cluster.rpc.faults import Fault, to_error
from cluster.rpc.frames import (
    FAULT,
    GOODBYE,
    HEAD,
    MAX_TIMEOUT_MS,
    REPLY,
    REQUEST_HEAD,
    request_head,
)
from cluster.rpc.handshake import VERSION, Versions
from cluster.rpc.link import Link
from cluster.rpc.methods import Method

R = TypeVar("R")


class Call:
    """A call that waits for its answer."""

    __slots__ = ("deadline", "future", "method", "payload", "size")

    def __init__(
        self, future: asyncio.Future[Any], method: Method[Any], deadline: float, payload: bytes
    ) -> None:
        self.future = future
        self.method = method
        # Loop time.
        self.deadline = deadline
        # The encoded arguments; None once they have been sent.
        self.payload: bytes | None = payload
        self.size = len(payload)

    def fail(self, error: EnckeError) -> None:
        """Answer it with an error, unless nobody waits any more."""
        if not self.future.done():
            self.future.set_exception(error)


class RpcClient:
    """One peer. Reconnects by itself until it is stopped."""

    def __init__(
        self, address: str, service: str, config: RpcConfig, versions: Versions | None = None
    ) -> None:
        """Prepare; start() begins to connect. Needs a running loop.

        Args:
            address: "host:port".
            service: what must be served there ("comet", "message").
            versions: protocol versions to offer; by default those of this code.

        Raises:
            ValueError: the address is none.
        """
        self._loop = asyncio.get_running_loop()
        self.address = address
        self._config = config
        self._connector = Connector(
            Target(address, service), self, config, versions or Versions.up_to(VERSION)
        )
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        # Of the connection, once there was one.
        self._version = 0
        # The peer has said goodbye: it finishes its calls and takes no more.
        self._is_draining = False
        self._is_stopped = False
        # By number, in the order of the calls. Numbers are never used twice.
        self._calls: dict[int, Call] = {}
        self._call_bytes = 0
        self._last_number = 0
        self._deadlines = Deadlines(self._loop, self._expire)
        self._idle: asyncio.Future[None] | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_fault = msgspec.msgpack.Decoder(Fault).decode
        self._down_reason = "not started"

    @property
    def is_up(self) -> bool:
        """Connected to a peer that takes calls."""
        return self._link is not None and not self._is_draining and not self._is_stopped

    @property
    def is_connecting(self) -> bool:
        """A call made now waits for the connection."""
        return self._connector.state is State.CONNECTING and not self._is_stopped

    @property
    def version(self) -> int:
        """Protocol version agreed with the peer, 0 before the first connection."""
        return self._version

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return len(self._calls)

    def start(self) -> None:
        """Begin to connect."""
        assert self._task is None, "started twice"
        self._down_reason = "not connected"
        self._task = self._loop.create_task(self._connector.run())
        self._connector.state = State.CONNECTING

    async def stop(self, finish_s: float = 0.0) -> None:
        """Take no more calls, let those in flight finish, end the connection. May be called again.

        Args:
            finish_s: how long to wait for calls in flight; then they fail.
        """
        self._is_stopped = True
        self._down_reason = "stopped"
        try:
            if self._calls and finish_s > 0:
                self._idle = self._idle or self._loop.create_future()
                await asyncio.wait([self._idle], timeout=finish_s)
        finally:
            self._cut()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _cut(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._link = None
        self._fail_calls("stopped", is_final=True)
        self._deadlines.cancel()

    def call(self, method: Method[R], arguments: tuple[Any, ...], timeout_s: float) -> asyncio.Future[R]:
        """Call the peer.

        A plain function: a call costs no task.

        Args:
            timeout_s: how long to wait; the peer is told, and gives up then too.

        Cancellation: cancelling the future only stops waiting.

        Raises (through the future): see the head of this file, and
            LocalProtocolError: the peer does not know the method, or our arguments are wrong.
            RemoteProtocolError: the answer to a read is not what it must be.
            Whatever EnckeError the peer's handler raised.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        try:
            payload = self._encode(arguments)
        except (TypeError, ValueError, OverflowError) as error:
            future.set_exception(LocalProtocolError(f"{method.name}: {error}"))
            return future
        refusal = self._refusal(method, len(payload), timeout_s)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        deadline = self._loop.time() + timeout_s
        number = self._last_number = self._last_number + 1
        call = self._calls[number] = Call(future, method, deadline, payload)
        self._call_bytes += call.size
        if self._link is not None:
            call.payload = None
            timeout_ms = min(int(timeout_s * 1000) + 1, MAX_TIMEOUT_MS)
            self._link.send(request_head(len(payload), number, method.number, timeout_ms), payload)
        if deadline < self._deadlines.next_at:
            self._deadlines.wake_at(deadline)
        return future

    def _refusal(self, method: Method[R], size: int, timeout_s: float) -> EnckeError | None:
        config = self._config
        if self._link is None and not self.is_connecting:
            return UnavailableError(f"{self.address}: {self._down_reason}")
        if self._is_draining or self._is_stopped:
            return UnavailableError(f"{self.address}: takes no more calls")
        if self._link is not None and method.since > self._version:
            return self._too_old(method)
        if timeout_s <= 0:
            return DeadlinePassedError(f"{method.name}: no time left")
        if size + REQUEST_HEAD.size > config.max_frame_bytes:
            return TooLargeError(f"{method.name}: request over {config.max_frame_bytes} bytes")
        is_full = self._call_bytes + size > config.max_call_bytes
        if len(self._calls) >= config.max_calls or (is_full and self._calls):
            return UnavailableError(f"{self.address}: too many calls in flight")
        return None

    def _too_old(self, method: Method[Any]) -> EnckeError:
        needed = f"needs protocol version {method.since}, the peer speaks {self._version}"
        return UnavailableError(f"{self.address}: {method.name} {needed}")

    # -- told by the connector

    def on_up(self, link: Link, version: int) -> None:
        """Send what has waited."""
        self._link = link
        self._version = version
        now = self._loop.time()
        for number, call in list(self._calls.items()):
            payload, call.payload = call.payload, None
            if payload is None:
                continue
            if call.method.since > version:
                self._drop(number, self._too_old(call.method))
                continue
            timeout_ms = min(max(0, int((call.deadline - now) * 1000)) + 1, MAX_TIMEOUT_MS)
            link.send(request_head(call.size, number, call.method.number, timeout_ms), payload)

    def on_frames(self, frames: list[bytes]) -> None:
        """Give each answer to its call."""
        calls = self._calls
        for frame in frames:
            kind, number = HEAD.unpack_from(frame)
            call = calls.pop(number, None)
            if call is None:
                self._on_other(kind, number)
                continue
            self._call_bytes -= call.size
            if not call.future.done():
                self._answer(call, kind, frame[HEAD.size :])
        if not calls:
            self._become_idle()

    def on_down(self, reason: Exception) -> None:
        """Sent calls have lost their answers; waiting ones wait on while the peer is dialled at once."""
        self._link = None
        self._is_draining = False
        self._down_reason = str(reason)
        self._fail_calls(str(reason), is_final=self._connector.state is not State.CONNECTING)

    def _answer(self, call: Call, kind: int, body: bytes) -> None:
        try:
            if kind == REPLY:
                call.future.set_result(call.method.decode_result(body))
                return
            if kind != FAULT:
                raise RemoteProtocolError(f"unexpected frame of kind {kind}")
            call.future.set_exception(to_error(self._decode_fault(body)))
        except msgspec.ValidationError as error:
            # Well formed, but not what this node expects: the peer may be of another version.
            call.fail(_unreadable(call.method, error))
        except (msgspec.DecodeError, RemoteProtocolError, RecursionError) as error:
            call.fail(_unreadable(call.method, error))
            raise RemoteProtocolError(f"not an answer: {error}") from error

    def _on_other(self, kind: int, number: int) -> None:
        """Handle what belongs to no call: an answer that comes too late is dropped."""
        if kind == GOODBYE:
            self._is_draining = True
        elif number > self._last_number or kind not in (REPLY, FAULT):
            raise RemoteProtocolError(f"frame of kind {kind} for call {number}, which was never made")

    # -- ends without an answer

    def _expire(self, now: float) -> float:
        following = math.inf
        for number, call in list(self._calls.items()):
            if call.deadline > now:
                following = min(following, call.deadline)
            elif call.payload is None:
                self._drop(number, call.method.answer_lost(f"no answer in time from {self.address}"))
            else:
                self._drop(number, UnavailableError(f"{self.address}: not connected in time"))
        if not self._calls:
            self._become_idle()
        return following

    def _fail_calls(self, why: str, *, is_final: bool) -> None:
        for number, call in list(self._calls.items()):
            if call.payload is None:
                self._drop(number, call.method.answer_lost(f"{self.address}: {why}"))
            elif is_final:
                self._drop(number, UnavailableError(f"{self.address}: {why}"))
        if not self._calls:
            self._become_idle()

    def _drop(self, number: int, error: EnckeError) -> None:
        call = self._calls.pop(number)
        self._call_bytes -= call.size
        call.fail(error)

    def _become_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


def _unreadable(method: Method[Any], error: Exception) -> EnckeError:
    """An answer came but says nothing: what changes something may have been done."""
    if method.is_read:
        return RemoteProtocolError(f"{method.name}: unreadable answer: {error}")
    return method.answer_lost(f"unreadable answer: {error}")
