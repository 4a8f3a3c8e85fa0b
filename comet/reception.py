"""Admits subscribers: checks a well-formed subscription, attaches the connection, begins the service.

Also what connections share once they are in: limits, timers, what follows when
one ends.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from cluster.failurelimiter import FailureLimiter
from cluster.model import Key, Mid
from cluster.tokens import TokenVerifier
from comet.codec.protocol import RESUME_ACKNOWLEDGED, CloseReason, Refusal, Subscribe
from comet.codec.wires import Wire
from comet.config import CometConfig
from comet.metrics import CometMetrics
from comet.ownership.ownership import Ownership
from comet.sockets.timers import TimerWheel
from comet.subscribers.acknowledgements import Acknowledgements
from comet.subscribers.catchup import Resumer
from comet.subscribers.connection import Connection, Transport
from comet.subscribers.hub import Hub

log = logging.getLogger(__name__)


class Reception:
    """The way in and out of the hub. Implements ConnectionContext."""

    def __init__(
        self,
        config: CometConfig,
        capacity: int,
        hub: Hub,
        ownership: Ownership,
        verifier: TokenVerifier,
        resumer: Resumer,
        acknowledgements: Acknowledgements,
        wheel: TimerWheel,
        metrics: CometMetrics,
        *,
        unix_time: Callable[[], float],
    ) -> None:
        """Make a reception.

        Args:
            capacity: connections that this process can hold.
            unix_time: seconds; token expiry and `since` are measured with it.
        """
        self.unread_limit_bytes = config.unread_limit_bytes
        self.linger_s = config.linger_s
        self.capacity = capacity
        self._hub = hub
        self._ownership = ownership
        self._verifier = verifier
        self._is_token_required = verifier.is_required
        # Of bad tokens, by address.
        self._guesses = FailureLimiter(config.token_failures_per_minute, wheel.now)
        self._resumer = resumer
        self._acknowledgements = acknowledgements
        self._wheel = wheel
        self._metrics = metrics
        self._unix_time = unix_time
        self._is_draining = False
        # Asked once: the level stays, and the address that a line tells costs a system call.
        self._is_telling = log.isEnabledFor(logging.DEBUG)

    def drain(self) -> None:
        """Refuse new subscribers from now on."""
        self._is_draining = True

    def subscribe(
        self, subscribe: Subscribe, transport: Transport, wire: Wire, greeting: bytes = b""
    ) -> Connection | Refusal:
        """Make a live connection, send it the greeting and the first heartbeat line, or say why not.

        The connection is attached before the line is written, so that nothing
        pushed after a subscriber has seen the line can pass it by.
        """
        key = subscribe.key
        if self._is_draining or self._hub.connection_count >= self.capacity or not self._ownership.owns(key):
            return self._refuse(self._why_not(key))
        now = self._wheel.now()
        unix_now = self._unix_time()
        connection = Connection(
            self, transport, wire, subscribe.device, subscribe.heartbeat_s, now, int(unix_now)
        )
        if self._is_token_required:
            address = transport.peer.rpartition(":")[0]
            # Before the token is looked at: a guesser must not learn that this one would be good.
            if self._guesses.wait_s(address):
                return self._refuse(Refusal.TOO_MANY_TOKENS)
            expiry = self._verifier.expiry(key, subscribe.token, unix_now)
            if expiry is None:
                self._guesses.add_failure(address)
                return self._refuse(Refusal.BAD_TOKEN)
            self._guesses.trust(address)
            connection.expire_token_at(now + (expiry - unix_now))
        if not self._hub.attach(key, connection):
            return self._refuse(Refusal.TOO_MANY)
        if self._is_telling:
            _tell_in(subscribe, transport, wire)
        if subscribe.resume is not None:
            self._resumer.start(connection, key, self._start_of(subscribe))
        connection.write(greeting + wire.heartbeat)
        self._wheel.add(connection, connection.first_deadline())
        return connection

    def turn_away(self, reason: CloseReason) -> None:
        """Count a socket that never came to ask for a subscription."""
        self._metrics.refusals.inc(reason.label)

    def _why_not(self, key: Key) -> Refusal:
        """Why this node takes nobody for a key at the moment."""
        if self._is_draining:
            return Refusal.DRAINING
        return Refusal.OVERLOADED if self._ownership.owns(key) else Refusal.NOT_OWNER

    def _refuse(self, refusal: Refusal) -> Refusal:
        self._metrics.refusals.inc(refusal.reason.label)
        return refusal

    def _start_of(self, subscribe: Subscribe) -> Callable[[], Awaitable[Mid]]:
        if subscribe.resume == RESUME_ACKNOWLEDGED:
            return partial(self._acknowledgements.resume_point, subscribe.key, subscribe.device)
        return partial(_just, Mid(subscribe.resume or 0))

    # -- ConnectionContext

    def on_close(self, connection: Connection, reason: CloseReason) -> None:
        """Take it out of its channel, count and tell why, hurry its last acknowledgement."""
        key = connection.channel.key if connection.channel is not None else None
        self._hub.detach(connection)
        self._metrics.closes.inc(reason.label)
        if reason is CloseReason.SLOW_CONSUMER:
            log.warning("slow consumer, cut: key=%s unread_bytes=%d", key, connection.unread_bytes)
        if self._is_telling:
            log.debug("connection ended: key=%s peer=%s reason=%s", key, connection.peer, reason.label)
        if key is not None:
            self._acknowledgements.hurry(key, connection.device)
        if connection.catch_up is not None:
            self._resumer.cancel(connection)

    def on_drop(self, reason: CloseReason, count: int = 1) -> None:
        """Count them."""
        self._metrics.drops.inc(reason.label, count)

    def on_acknowledge(self, connection: Connection, mid: Mid) -> None:
        """Remember it for the device."""
        if connection.channel is not None:
            is_claim = mid <= connection.resumed_mid
            self._acknowledgements.take(connection.channel.key, connection.device, mid, is_claim=is_claim)

    def linger(self, connection: Connection) -> None:
        """Abort it after a while unless its peer ends first."""
        self._wheel.move(connection, self._wheel.now() + self.linger_s)

    def forget(self, connection: Connection) -> None:
        """It has ended; no timer needs it."""
        self._wheel.remove(connection)


def _tell_in(subscribe: Subscribe, transport: Transport, wire: Wire) -> None:
    """Log a subscriber that was let in, with what it wants to resume from."""
    resume = "no" if subscribe.resume is None else str(subscribe.resume)
    if subscribe.resume == RESUME_ACKNOWLEDGED:
        resume = "ack"
    log.debug(
        "subscribed: key=%s peer=%s transport=%s resume=%s",
        *(subscribe.key, transport.peer, wire.transport, resume),
    )


async def _just(mid: Mid) -> Mid:
    return mid
