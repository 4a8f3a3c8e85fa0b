"""Calls to one peer: many in flight on one connection, each with a deadline and a definite end.

What a failed call says is exact. Surely not carried out: UnavailableError (not
sent, or the peer refused it), DeadlinePassedError, TooLargeError. May have been
carried out: InDoubtError, and for methods that only read UnavailableError. A
call made while the connection is being dialled waits for it; after an attempt
has failed calls fail at once, so that the caller can choose another peer.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec

from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    LocalProtocolError,
    OverloadedError,
    RemoteProtocolError,
    RequestError,
    TooLargeError,
    UnavailableError,
)
from cluster.rpc.calls import Calls
from cluster.rpc.config import RpcConfig
from cluster.rpc.connector import Connector, State, Target
from cluster.rpc.faults import Fault, to_error
from cluster.rpc.frames import (
    FAULT,
    GOODBYE,
    HEAD,
    MAX_TIMEOUT_MS,
    REPLY,
    REQUEST,
    REQUEST_FRAME_HEAD,
    REQUEST_HEAD,
    request_head,
    timeout_ms,
)
from cluster.rpc.handshake import VERSION, Versions
from cluster.rpc.link import Link
from cluster.rpc.methods import Method
from cluster.rpc.metrics import ClientMetrics
from cluster.stats import Stats

R = TypeVar("R")


class RpcClient:
    """One peer. Reconnects by itself until it is stopped."""

    def __init__(
        self,
        address: str,
        service: str,
        config: RpcConfig,
        versions: Versions | None = None,
        metrics: ClientMetrics | None = None,
    ) -> None:
        """Prepare; start() begins to connect. Needs a running loop.

        Args:
            address: "host:port".
            service: what must be served there ("comet", "message").
            versions: protocol versions to offer; by default those of this code.
            metrics: of all clients of the process; None = its own, which nobody sees.

        Raises:
            ValueError: the address is none.
        """
        self._loop = asyncio.get_running_loop()
        self.address = address
        self.service = service
        self._config = config
        self._metrics = metrics = metrics or ClientMetrics(Stats())
        offered = versions or Versions.up_to(VERSION)
        self._connector = Connector(Target(address, service), self, config, offered, metrics.traffic)
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        # Of the connection, once there was one.
        self._version = 0
        # Connected to a peer that takes calls. Plain, because every call asks; changed only here.
        self.is_up = False
        # Calls are finished but not taken: the peer has said goodbye, or we were stopped.
        self._is_closing = False
        self._is_stopped = False
        self._calls = Calls(self._loop, address, metrics.errors)
        # Both are theirs; kept, because every call asks.
        self._waiting, self._deadlines = self._calls.waiting, self._calls.deadlines
        self._max_payload_bytes = config.max_frame_bytes - REQUEST_HEAD.size
        # Numbers are never used twice.
        self._last_number = 0
        self._max_calls, self._max_call_bytes = config.max_calls, config.max_call_bytes
        self._create_future = self._loop.create_future
        self._now = self._loop.time
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_fault = msgspec.msgpack.Decoder(Fault).decode
        self._down_reason = "not started"

    @property
    def is_connecting(self) -> bool:
        """A call made now waits for the connection."""
        return self._connector.state is State.CONNECTING and not self._is_stopped

    @property
    def was_tried(self) -> bool:
        """Whether anything is known of the peer: it was up, or an attempt to reach it has failed."""
        return self._version > 0 or self._connector.ended > 0

    @property
    def refusal(self) -> str | None:
        """Why the peer and this node did not agree when they last met; None = they did, or have not met."""
        return f"{self.address}: {self._down_reason}" if self._connector.is_refused else None

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return len(self._waiting)

    @property
    def call_count(self) -> int:
        """Calls made so far, whatever became of them, without those refused at once."""
        return self._last_number

    def start(self) -> None:
        """Begin to connect."""
        assert self._task is None, "started twice"
        self._metrics.add(self)
        self._down_reason = "not connected"
        self._task = self._loop.create_task(self._connector.run())
        self._connector.state = State.CONNECTING

    async def stop(self, finish_s: float = 0.0) -> None:
        """Take no more calls, let those in flight finish, end the connection. May be called again.

        Args:
            finish_s: how long to wait for calls in flight; then they fail.
        """
        self._is_stopped = self._is_closing = True
        self.is_up = False
        self._down_reason = "stopped"
        try:
            await self._calls.wait_idle(finish_s)
        finally:
            self._cut()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _cut(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._link = None
        self._calls.drop_all("stopped", is_final=True)
        self._metrics.remove(self)
        self._deadlines.cancel()

    def call(self, method: Method[R], arguments: tuple[Any, ...], timeout_s: float) -> asyncio.Future[R]:
        """Call the peer.

        A plain function: a call costs no task.

        Args:
            timeout_s: how long to wait; the peer is told, and gives up then too.

        Cancellation: cancelling the future only stops waiting.

        Raises (through the future): see the head of this file, and
            RequestError: a text in the arguments is no Unicode.
            LocalProtocolError: the peer does not know the method, or our arguments are wrong.
            RemoteProtocolError: the answer to a read is not what it must be.
            Whatever EnckeError the peer's handler raised.
        """
        future: asyncio.Future[R] = self._create_future()
        try:
            payload = self._encode(arguments)
        except (TypeError, ValueError, OverflowError) as error:
            self._calls.fail(future, _unsendable(method, error))
            return future
        size = len(payload)
        link = self._link
        calls = self._calls
        waiting = self._waiting
        if (
            link is None
            or timeout_s <= 0
            or self._is_closing
            or method.since > self._version
            or size > self._max_payload_bytes
            # As RpcConfig.is_full() decides; that one is asked only when it may be.
            or len(waiting) >= self._max_calls
            or calls.bytes + size > self._max_call_bytes
        ):
            refusal = self._refusal(method, size, timeout_s)
            if refusal is not None:
                calls.fail(future, refusal)
                return future
        number = self._last_number = self._last_number + 1
        if link is None:
            calls.unsent[number] = payload
        else:
            # As request_head() does.
            left_ms = int(timeout_s * 1000) + 1
            if left_ms > MAX_TIMEOUT_MS:
                left_ms = MAX_TIMEOUT_MS
            link.send(REQUEST_FRAME_HEAD.pack(size + 15, REQUEST, number, method.number, left_ms), payload)
        deadline = self._now() + timeout_s
        waiting[number] = (future, method, deadline, size)
        calls.bytes += size
        if deadline < self._deadlines.next_at:
            self._deadlines.wake_at(deadline)
        return future

    def _refusal(self, method: Method[R], size: int, timeout_s: float) -> EnckeError | None:
        """Why a call cannot be made; None when it can, now or when the connection is there."""
        if self._link is None:
            if not self.is_connecting:
                return UnavailableError(f"{self.address}: {self._down_reason}")
        elif method.since > self._version:
            return self._too_old(method)
        if self._is_closing:
            return UnavailableError(f"{self.address}: takes no more calls")
        if timeout_s <= 0:
            return DeadlinePassedError(f"{method.name}: no time left")
        if size > self._max_payload_bytes:
            return TooLargeError(f"{method.name}: request over {self._max_payload_bytes} bytes")
        if self._config.is_full(len(self._waiting), self._calls.bytes, size):
            return OverloadedError(f"{self.address}: too many calls in flight")
        return None

    def _too_old(self, method: Method[Any]) -> EnckeError:
        needed = f"needs protocol version {method.since}, the peer speaks {self._version}"
        return UnavailableError(f"{self.address}: {method.name} {needed}")

    # -- told by the connector

    def on_up(self, link: Link, version: int) -> None:
        """Send what has waited."""
        self._link = link
        self.is_up = not self._is_closing
        self._version = version
        self._metrics.connects.inc(self.service)
        now = self._loop.time()
        unsent, self._calls.unsent = self._calls.unsent, {}
        for number, payload in unsent.items():
            _, method, deadline, size = self._waiting[number]
            if method.since > version:
                self._calls.drop(number, self._too_old(method))
                continue
            head = request_head(size, number, method.number, timeout_ms(deadline - now))
            link.send(head, payload)

    def on_frames(self, frames: list[bytes]) -> None:
        """Give each answer to its call."""
        calls = self._calls
        take = self._waiting.pop
        unpack = HEAD.unpack_from
        for frame in frames:
            kind, number = unpack(frame)
            call = take(number, None)
            if call is None:
                self._on_other(kind, number)
                continue
            future, method, _, size = call
            calls.bytes -= size
            if future.done():
                continue
            try:
                if kind == REPLY:
                    # 9 = HEAD.size
                    future.set_result(method.decode_result(frame[9:]))
                else:
                    calls.fail(future, self._read_fault(kind, frame))
            except (msgspec.MsgspecError, RemoteProtocolError, RecursionError) as error:
                calls.fail(future, _unreadable(method, error))
                # A wrong type is well formed: the peer may be of another version.
                if not isinstance(error, msgspec.ValidationError):
                    raise RemoteProtocolError(f"not an answer: {error}") from error
        if not self._waiting:
            calls.become_idle()

    def on_down(self, reason: Exception) -> None:
        """Sent calls have lost their answers; waiting ones wait on while the peer is dialled at once."""
        self._link = None
        self.is_up = False
        self._is_closing = self._is_stopped
        self._down_reason = str(reason)
        self._calls.drop_all(str(reason), is_final=self._connector.state is not State.CONNECTING)

    def _read_fault(self, kind: int, frame: bytes) -> EnckeError:
        if kind != FAULT:
            raise RemoteProtocolError(f"unexpected frame of kind {kind}")
        return to_error(self._decode_fault(frame[HEAD.size :]))

    def _on_other(self, kind: int, number: int) -> None:
        """Handle what belongs to no call: an answer that comes too late is dropped."""
        if kind == GOODBYE:
            self._is_closing = True
            self.is_up = False
        elif number > self._last_number or kind not in (REPLY, FAULT):
            raise RemoteProtocolError(f"frame of kind {kind} for call {number}, which was never made")


def _unsendable(method: Method[Any], error: Exception) -> EnckeError:
    """Arguments that cannot be encoded: half a surrogate pair came from outside, all else is our bug."""
    if isinstance(error, UnicodeEncodeError):
        return RequestError(f"{method.name}: not valid UTF-8: {error.reason}")
    return LocalProtocolError(f"{method.name}: {error}")


def _unreadable(method: Method[Any], error: Exception) -> EnckeError:
    """An answer came but says nothing: what changes something may have been done."""
    if method.is_read:
        return RemoteProtocolError(f"{method.name}: unreadable answer: {error}")
    return method.answer_lost(f"unreadable answer: {error}")
