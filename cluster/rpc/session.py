"""One peer of a server, from its first byte to its end: lets it in, or not. Its calls: dispatch.py."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import UnavailableError
from cluster.rpc.config import RpcConfig
from cluster.rpc.dispatch import Dispatcher
from cluster.rpc.frames import GOODBYE, frame_head
from cluster.rpc.handshake import NONCE_BYTES, ServerHandshake, Versions
from cluster.rpc.link import Link
from cluster.rpc.methods import Route
from cluster.rpc.metrics import ServerMetrics

log = logging.getLogger(__name__)


# Who is refused dials again and again.
REFUSALS_TOLD_EVERY_S = 60.0


class RefusedPeers:
    """Says in the log that peers are refused: nodes of this project, with other settings."""

    def __init__(self) -> None:
        """Say it at the first one."""
        self._tell_at = -math.inf

    def take(self, peer: str, reason: str, now: float) -> None:
        """One was refused; now: seconds of a clock that does not leap."""
        if now >= self._tell_at:
            self._tell_at = now + REFUSALS_TOLD_EVERY_S
            log.warning("calls refused: peer=%s reason=%s", peer, reason)


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What the sessions of a server share."""

    service: str
    routes: dict[int, Route]
    config: RpcConfig
    versions: Versions
    metrics: ServerMetrics
    refusals: RefusedPeers = field(default_factory=RefusedPeers)
    sessions: set[Session] = field(default_factory=set)
    # Handlers that are coroutines, also those whose peer has gone.
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    # Set for good when the server stops.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class Session:
    """A connection of a peer."""

    def __init__(self, context: ServerContext) -> None:
        """Wait for the peer to introduce itself. Needs a running loop."""
        self._context = context
        self._config = config = context.config
        self._handshake = ServerHandshake(
            context.service, context.versions, config.secret, os.urandom(NONCE_BYTES), config.accepted_secrets
        )
        self.link = Link(context.config, context.metrics.traffic, is_server=True)
        self.link.on_made = self._on_made
        self.link.on_frames = self._on_handshake
        self.link.on_lost = self._on_lost
        self._dispatcher = Dispatcher(
            self.link, context.routes, context.tasks, context.config, context.metrics
        )
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._is_known = False

    @property
    def in_progress(self) -> int:
        """Calls that handlers work on."""
        return self._dispatcher.in_progress

    def drain(self) -> None:
        """Tell the peer to make no more calls; refuse those that it makes."""
        if not self._dispatcher.is_draining:
            self._dispatcher.is_draining = True
            if self._is_known:
                self._say_goodbye()

    async def wait_idle(self) -> None:
        """Return when no call is in progress. Cancelling is safe."""
        await self._dispatcher.wait_idle()

    def _on_made(self) -> None:
        sessions = self._context.sessions
        if self._context.stopping.is_set():
            # It was just being accepted; stop() may be over.
            self.link.abort(UnavailableError("this node is stopping"))
            return
        if len(sessions) >= self._config.max_connections:
            log.warning("too many connections, refused: peer=%s open=%d", self.link.peer, len(sessions))
            self.link.abort(UnavailableError("too many connections"))
            return
        sessions.add(self)
        late = UnavailableError(f"no handshake within {self._config.handshake_s} s")
        loop = asyncio.get_running_loop()
        self._handshake_timer = loop.call_later(self._config.handshake_s, self.link.abort, late)

    def _on_handshake(self, frames: list[bytes]) -> None:
        for index, frame in enumerate(frames, 1):
            self.link.send_body(self._handshake.receive(frame))
            refusal = self._handshake.refusal
            if refusal is not None:
                now = asyncio.get_running_loop().time()
                self._context.refusals.take(self.link.peer, refusal, now)
                self.link.close(UnavailableError(f"refused: {refusal}"))
                return
            if self._handshake.version is not None:
                self._let_in(frames[index:])
                return

    def _let_in(self, rest: list[bytes]) -> None:
        self._cancel_timer()
        self._is_known = True
        self.link.accept_large_frames()
        self.link.on_frames = self._dispatcher.on_frames
        log.debug("peer connected: peer=%s", self.link.peer)
        if self._dispatcher.is_draining:
            self._say_goodbye()
        self._dispatcher.on_frames(rest)

    def _say_goodbye(self) -> None:
        self.link.send(frame_head(0, GOODBYE, 0), b"")

    def _on_lost(self, reason: Exception) -> None:
        self._cancel_timer()
        self._dispatcher.on_lost()
        self._context.sessions.discard(self)
        # Unknown peers are not worth more: a port scan must not fill the log.
        level = logging.INFO if self._is_known else logging.DEBUG
        log.log(level, "peer gone: peer=%s reason=%s", self.link.peer, reason)

    def _cancel_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
