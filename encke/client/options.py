"""Settings of a subscriber that most callers leave alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberOptions:
    """Times and limits of a subscriber."""

    # Told to the server, which gives 5 s of grace beyond it; at least 30.
    heartbeat_s: int = 30
    # How often heartbeats are sent. Below heartbeat_s, so that a late timer does no harm.
    heartbeat_interval_s: float = 20.0
    # No word of the server for this long after a heartbeat: the connection is dead.
    answer_timeout_s: float = 10.0
    # Finding the server, connecting and subscribing, together.
    connect_timeout_s: float = 10.0
    # Delays between attempts: doubling, jittered (backoff.py).
    backoff_base_s: float = 0.5
    backoff_max_s: float = 30.0
    # A subscription that lived this long counts as a success: the delays begin anew.
    stable_after_s: float = 5.0
    # Received and not yet asked for; above it the client stops reading.
    buffer_bytes: int = 1024 * 1024
    # Protects this process from a message that it cannot hold; above the server's payload limit.
    max_message_bytes: int = 16 * 1024 * 1024
    # While messages keep coming, automatic acknowledgements are sent once for so many.
    acknowledge_every: int = 100
    # 1: for servers of the original protocol, without resume, gaps and
    # acknowledgements; what was missed is fetched over HTTP.
    protocol: int = 2

    def __post_init__(self) -> None:
        """Refuse what the server would refuse.

        Raises:
            ValueError: says which setting is wrong.
        """
        if self.heartbeat_s < 30:
            raise ValueError("heartbeat_s must be at least 30")
        if not 0 < self.heartbeat_interval_s <= self.heartbeat_s:
            raise ValueError("heartbeat_interval_s must be above 0 and not above heartbeat_s")
        if not 0 < self.answer_timeout_s <= self.heartbeat_s:
            # Each heartbeat waits for its answer before the next one.
            raise ValueError("answer_timeout_s must be above 0 and not above heartbeat_s")
        if self.protocol not in (1, 2):
            raise ValueError("protocol must be 1 or 2")
