"""Keeps one connection to a peer: dials, shakes hands, dials again with growing, jittered pauses.

Knows nothing of calls; client.py is told when a connection has come and gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cluster.addresses import split_address
from cluster.errors import EnckeError, LocalProtocolError, UnavailableError
from cluster.rpc.config import RpcConfig
from cluster.rpc.handshake import NONCE_BYTES, ClientHandshake, Versions
from cluster.rpc.link import Link
from cluster.rpc.metrics import Traffic

log = logging.getLogger(__name__)

# A connection that lived this long was a good one: its peer is dialled again at
# once. A peer that accepts and hangs up must not be dialled in a loop.
GOOD_LIFE_S = 1.0

# Backoff doubles at most this often; keeps 2**n small.
MAX_DOUBLINGS = 20


class State(Enum):
    """How the connection stands."""

    # Not started, or stopped.
    IDLE = "idle"
    # Dialling, and nothing speaks against the peer so far.
    CONNECTING = "connecting"
    UP = "up"
    # An attempt has failed; the next is due later.
    PAUSING = "pausing"


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call."""

    # "host:port"; an IPv6 host stands in brackets.
    address: str
    # What must be served there: "comet", "message".
    service: str


class Owner(Protocol):
    """Who uses the connection."""

    def on_up(self, link: Link, version: int) -> None:
        """A connection is ready for calls under this protocol version."""

    def on_frames(self, frames: list[bytes]) -> None:
        """Frames have arrived on it."""

    def on_down(self, reason: Exception) -> None:
        """The connection has ended, or an attempt to make one has failed; `state` tells what comes."""


class Connector:
    """The connection to one target."""

    def __init__(
        self, target: Target, owner: Owner, config: RpcConfig, versions: Versions, traffic: Traffic
    ) -> None:
        """Prepare; run() does the work, in a task of the owner's.

        Raises:
            ValueError: the target's address is none.
        """
        self.state = State.IDLE
        self._host, self._port = split_address(target.address)
        self._target = target
        self._owner = owner
        self._config = config
        self._versions = versions
        self._traffic = traffic
        self._is_down_logged = False
        # The last attempt, if it has ended, has ended in the handshake: the peer is there, and does not want
        # this node, or this node not it.
        self.is_refused = False
        # Connections and attempts to make one that have ended.
        self.ended = 0

    async def run(self) -> None:
        """Keep the connection.

        Cancellation: cuts the connection; the owner is not told.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self.state = State.CONNECTING
            began_at = loop.time()
            reason = await self._live()
            was_good = self.state is State.UP and loop.time() - began_at >= GOOD_LIFE_S
            failures = 0 if was_good else failures + 1
            self.state = State.PAUSING if failures else State.CONNECTING
            self._log_down(reason)
            self._owner.on_down(reason)
            if failures:
                await asyncio.sleep(pause_s(self._config, failures, random.random()))

    async def _live(self) -> Exception:
        """One connection from dialling to its end; returns why it ended."""
        loop = asyncio.get_running_loop()
        attempt = _Attempt(self)
        try:
            try:
                async with asyncio.timeout(self._config.connect_timeout_s):
                    await loop.create_connection(lambda: attempt.link, self._host, self._port)
            except TimeoutError:
                return UnavailableError(f"no connection within {self._config.connect_timeout_s} s")
            except OSError as error:
                return UnavailableError(error.strerror or str(error))
            except UnicodeError as error:
                # Of a host that cannot be looked up.
                return UnavailableError(str(error))
            return await attempt.lost
        finally:
            self.is_refused = attempt.is_refused
            self.ended += 1
            attempt.link.abort(LocalProtocolError("no longer needed"))

    def _log_down(self, reason: Exception) -> None:
        if not self._is_down_logged:
            self._is_down_logged = True
            log.warning("peer down: peer=%s node=%s reason=%s", *self._names, reason)

    def _on_up(self, link: Link, version: int) -> None:
        self.state = State.UP
        self.is_refused = self._is_down_logged = False
        log.info("peer up: peer=%s node=%s version=%d", *self._names, version)
        self._owner.on_up(link, version)

    @property
    def _names(self) -> tuple[str, str]:
        return self._target.address, self._target.service


class _Attempt:
    """A connection and its handshake."""

    def __init__(self, connector: Connector) -> None:
        config = connector._config
        loop = asyncio.get_running_loop()
        self._connector = connector
        self._config = config
        self._handshake = ClientHandshake(
            connector._target.service, connector._versions, config.secret, os.urandom(NONCE_BYTES)
        )
        # Done when the connection has ended, with the reason.
        self.lost: asyncio.Future[Exception] = loop.create_future()
        self.link = Link(config, connector._traffic, is_server=False)
        self.link.on_made = self._on_made
        self.link.on_frames = self._on_frames
        self.link.on_lost = self._on_lost
        self.is_refused = False
        self._timer: asyncio.TimerHandle | None = None

    def _on_made(self) -> None:
        late = UnavailableError(f"no handshake within {self._config.handshake_s} s")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._config.handshake_s, self.link.abort, late)
        self.link.send_body(self._handshake.begin())

    def _on_frames(self, frames: list[bytes]) -> None:
        for index, frame in enumerate(frames, 1):
            try:
                answer = self._handshake.receive(frame)
            except EnckeError:
                self.is_refused = True
                raise
            if answer is not None:
                self.link.send_body(answer)
            if self._handshake.version is not None:
                self._become_ready(self._handshake.version, frames[index:])
                return

    def _become_ready(self, version: int, rest: list[bytes]) -> None:
        self._cancel_timer()
        self.link.accept_large_frames()
        self.link.on_frames = self._connector._owner.on_frames
        self._connector._on_up(self.link, version)
        if rest:
            self.link.on_frames(rest)

    def _on_lost(self, reason: Exception) -> None:
        self._cancel_timer()
        if not self.lost.done():
            self.lost.set_result(reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def pause_s(config: RpcConfig, failures: int, random_share: float) -> float:
    """Pause before the next attempt: doubles with each failure, and half of it is chance.

    Args:
        failures: in a row, at least 1.
        random_share: from [0, 1); spreads the peers of a node that comes back.
    """
    full = config.backoff_first_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
    return min(full, config.backoff_max_s) * (0.5 + random_share / 2)
