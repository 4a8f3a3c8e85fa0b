"""Settings of a comet node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CometConfig:
    """A comet node: subscribers' connections. Limits say what they protect."""

    name: str = field(
        default="comet-1", metadata={"doc": "Name on the ring; its keys stay with the name across restarts."}
    )
    weight: int = field(
        default=1, metadata={"doc": "Share of the ring relative to other nodes.", "min": 0, "max": 1000}
    )
    ws_bind: str = field(
        default="0.0.0.0:6968",
        metadata={"doc": "Where WebSocket subscribers connect.", "may_be_off": True},
    )
    tcp_bind: str = field(
        default="0.0.0.0:6969",
        metadata={"doc": "Where raw TCP subscribers connect.", "may_be_off": True},
    )
    ws_advertise: str = field(
        default="",
        metadata={
            "doc": "host:port told to WebSocket subscribers. Empty: the bound port, at the host they asked."
        },
    )
    tcp_advertise: str = field(default="", metadata={"doc": "host:port told to TCP subscribers, likewise."})
    rpc_bind: str = field(
        default="127.0.0.1:6970",
        metadata={
            "doc": "Where web nodes call `encke comet`. On an address that others can reach set rpc.secret."
        },
    )
    rpc_advertise: str = field(
        default="",
        metadata={"doc": "host:port told to web nodes. Empty: the bound one; 0.0.0.0 needs it."},
    )
    status_bind: str = field(
        default="127.0.0.1:6972",
        metadata={"doc": "Where `encke comet` answers /healthz, /readyz and /metrics.", "may_be_off": True},
    )
    ws_origins: tuple[str, ...] = field(
        default=(), metadata={"doc": "Web origins that browsers may subscribe from. Empty: any."}
    )
    max_connections: int = field(
        default=0,
        metadata={"doc": "Refuse more subscribers than this. 0: as many as descriptors allow.", "min": 0},
    )
    max_connections_per_key: int = field(
        default=64,
        metadata={"doc": "Protects memory from one key opened in a loop.", "min": 1, "max": 10_000},
    )
    tcp_handshake_s: float = field(
        default=5.0, metadata={"doc": "Time for a TCP subscriber to say all of its command.", "min": 0.1}
    )
    ws_handshake_s: float = field(
        default=10.0,
        metadata={"doc": "Time for a WebSocket subscriber to say all of its request.", "min": 0.1},
    )
    linger_s: float = field(
        default=2.0, metadata={"doc": "Time for a peer to answer our goodbye before it is cut.", "min": 0.0}
    )
    send_buffer_bytes: int = field(
        default=8192,
        metadata={
            "doc": "Kernel send buffer per connection; without it one stopped reader takes megabytes.",
            "min": 2048,
            "max": 64 * 1024 * 1024,
        },
    )
    unread_limit_bytes: int = field(
        default=1024 * 1024,
        metadata={"doc": "Unread data above which a subscriber is cut as slow.", "min": 16 * 1024},
    )
    max_frames_per_s: int = field(
        default=1000,
        metadata={
            "doc": "Frames that one subscriber may send in a second; then it is not read from for a second. "
            "64 heartbeats in a row count as one over TCP.",
            "min": 1,
        },
    )
    token_failures_per_minute: int = field(
        default=60,
        metadata={
            "doc": "Refused subscriber tokens per address before its subscriptions are closed without a word,"
            " so that guessing is slow. An address that has shown a good token never waits: behind a"
            " balancer all subscribers have the same. 0: no limit.",
            "min": 0,
        },
    )
    max_pending_keys: int = field(
        default=400_000,
        metadata={"doc": "Keys of pushes in progress; more are refused. Protects memory.", "min": 1},
    )
    max_pending_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata={"doc": "Payload bytes of pushes in progress; more are refused.", "min": 1024 * 1024},
    )
    max_queue_per_key: int = field(
        default=10_000,
        metadata={
            "doc": "Pushes that wait for one key; more are refused. One key cannot starve others.",
            "min": 1,
        },
    )
    fan_out_slice: int = field(
        default=128,
        metadata={"doc": "Keys of one push served before other work gets a turn.", "min": 1, "max": 100_000},
    )
    resume_page_bytes: int = field(
        default=256 * 1024,
        metadata={"doc": "Stored bytes read at a time for a resuming subscriber.", "min": 4096},
    )
    resume_page_messages: int = field(
        default=500, metadata={"doc": "Stored messages read at a time, likewise.", "min": 1}
    )
    resume_hold_bytes: int = field(
        default=512 * 1024,
        metadata={"doc": "Live bytes held for a subscriber that still catches up.", "min": 4096},
    )
    resume_stall_s: float = field(
        default=30.0,
        metadata={
            "doc": "A subscriber that reads nothing this long while it catches up is slow.",
            "min": 0.1,
        },
    )
    max_resume_loads: int = field(
        default=32,
        metadata={
            "doc": "Store reads for resuming subscribers at a time; keeps a storm from starving pushes.",
            "min": 1,
        },
    )
    store_timeout_s: float = field(
        default=5.0, metadata={"doc": "How long a read from the store may take.", "min": 0.1}
    )
    membership_wait_s: float = field(
        default=2.0,
        metadata={
            "doc": "How long a push under a newer membership than this node's waits for that one.",
            "min": 0.0,
            "max": 60.0,
        },
    )
    acknowledge_interval_s: float = field(
        default=1.0,
        metadata={"doc": "Acknowledged mids are written at most this often per device.", "min": 0.0},
    )
    close_pace_per_s: int = field(
        default=500,
        metadata={"doc": "Connections closed a second when keys move or the node drains.", "min": 1},
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """Refuse a node that no subscriber could connect to."""
        if not (self.ws_bind or self.tcp_bind):
            yield "tcp_bind", "is switched off, and so is comet.ws_bind: subscribers need one of them"
