"""Settings of the calls between nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """Calls between the nodes of a cluster. The limits hold on both sides."""

    secret: str = field(
        default="",
        metadata={
            "doc": "Shared by all nodes of a cluster; who does not know it may not call. Empty: anyone may.",
            "secret": True,
        },
    )
    accepted_secrets: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "As good as the secret when others call this node. To change it while the cluster runs: "
            "the new one here on all nodes; then it is the secret and the old one stands here; then that "
            "goes. Each step node by node.",
            "secret": True,
        },
    )
    connect_timeout_s: float = field(
        default=2.0, metadata={"doc": "Time for a connection to be established.", "min": 0.05}
    )
    handshake_s: float = field(
        default=5.0, metadata={"doc": "Time for a peer to say who it is.", "min": 0.05}
    )
    ping_interval_s: float = field(
        default=1.0, metadata={"doc": "A connection with nothing to say says so this often.", "min": 0.01}
    )
    silence_s: float = field(
        default=3.0,
        metadata={
            "doc": "A peer that was silent for this long is gone, also when its connection looks alive.",
            "min": 0.02,
        },
    )
    backoff_first_s: float = field(
        default=0.05,
        metadata={"doc": "Pause after the first failed attempt to connect; doubles.", "min": 0.001},
    )
    backoff_max_s: float = field(
        default=2.0, metadata={"doc": "Longest pause between attempts to connect.", "min": 0.001}
    )
    max_frame_bytes: int = field(
        default=32 * 1024 * 1024,
        metadata={
            "doc": "Largest request or answer; protects memory from a broken peer.",
            "min": 64 * 1024,
            "max": 1024 * 1024 * 1024,
        },
    )
    max_calls: int = field(
        default=4096,
        metadata={"doc": "Calls in flight on one connection; more are refused at once.", "min": 1},
    )
    max_call_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={"doc": "Their requests together; likewise.", "min": 64 * 1024},
    )
    max_unread_bytes: int = field(
        default=4 * 1024 * 1024,
        metadata={
            "doc": "Answers that a peer has not read yet; above it no more of its calls are read.",
            "min": 64 * 1024,
        },
    )
    max_connections: int = field(
        default=1024, metadata={"doc": "Peers connected to this node at a time.", "min": 1}
    )

    def is_full(self, calls: int, call_bytes: int, size: int) -> bool:
        """Whether there is no room for one more call of this size. A single one always has its chance.

        Args:
            calls: in flight on the connection.
            call_bytes: of their requests.
        """
        return calls > 0 and (call_bytes + size > self.max_call_bytes or calls >= self.max_calls)

    def faults(self) -> Iterable[tuple[str, str]]:
        """See cluster/config.py."""
        if not all(self.accepted_secrets):
            yield "accepted_secrets", "must not be empty"
        elif self.accepted_secrets and not self.secret:
            yield "accepted_secrets", "needs a secret: without one anyone may call"
        if self.silence_s < 2 * self.ping_interval_s:
            yield "silence_s", "must be at least twice ping_interval_s"
        if self.backoff_max_s < self.backoff_first_s:
            yield "backoff_max_s", "must not be below backoff_first_s"
