"""Settings of a web node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.addresses import is_loopback, split_address

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A web node: the HTTP APIs. Limits say what they protect."""

    name: str = field(default="web-1", metadata={"doc": "Name in the listing of nodes."})
    public_bind: str = field(
        default="0.0.0.0:8090",
        metadata={"doc": "Where subscribers ask for their server and stored messages.", "may_be_off": True},
    )
    admin_bind: str = field(
        default="127.0.0.1:8091",
        metadata={
            "doc": "Where the backend pushes. On another address than loopback it needs admin_token.",
            "may_be_off": True,
        },
    )
    status_bind: str = field(
        default="127.0.0.1:8092",
        metadata={"doc": "Where `encke web` answers /healthz, /readyz and /metrics.", "may_be_off": True},
    )
    status_advertise: str = field(
        default="",
        metadata={
            "doc": "host:port at which other web nodes ask for what the node listing shows of this one. "
            "Empty: the bound one, if that names a host."
        },
    )
    admin_token: str = field(
        default="",
        metadata={
            "doc": "Wanted as 'Authorization: Bearer TOKEN' by the admin API. Empty: none.",
            "secret": True,
        },
    )
    admin_insecure: bool = field(
        default=False,
        metadata={"doc": "Allow an admin address that others can reach without a token."},
    )
    admin_origins: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Web origins whose pages may use the admin API ('*': any). Others are refused, because a"
            " web page can post to the loopback address of whoever looks at it."
        },
    )
    public_origins: tuple[str, ...] = field(
        default=(), metadata={"doc": "Web origins that may read public answers by CORS ('*': any)."}
    )
    request_timeout_s: float = field(
        default=5.0,
        metadata={"doc": "How long a push or a read may take before it is answered as failed.", "min": 0.1},
    )
    comet_timeout_s: float = field(
        default=3.0,
        metadata={
            "doc": "How long one comet node may take for a push. When it is silent for longer, the push is"
            " tried again in what is left of request_timeout_s, at the owner that the key has then. Without"
            " effect in `encke serve` with the embedded store and without --workers: all are one process.",
            "min": 0.05,
        },
    )
    status_timeout_s: float = field(
        default=1.0,
        metadata={"doc": "How long the node listing waits for a node's numbers.", "min": 0.05},
    )
    idempotency_ttl_s: int = field(
        default=3600,
        metadata={"doc": "How long a caller's own push id is remembered (about 150 bytes each).",
                  "min": 1, "max": 86_400},
    )  # fmt: skip
    max_payload_bytes: int = field(
        default=MIB, metadata={"doc": "Largest payload. Protects the memory of subscribers.", "min": 64}
    )
    max_many_body_bytes: int = field(
        default=16 * MIB,
        metadata={"doc": "Largest body of a push to many keys. Protects the web node's memory.", "min": 1024},
    )
    max_keys_per_push: int = field(
        default=100_000,
        metadata={
            "doc": "Most keys of one push. Bounds how long one request may hold the event loop.",
            "min": 1,
        },
    )
    max_fetch_bytes: int = field(
        default=16 * MIB,
        metadata={
            "doc": "Stored payload bytes in one answer; the rest is fetched with the last mid of it.",
            "min": 1024,
        },
    )
    stream_window: int = field(
        default=256,
        metadata={
            "doc": "Unanswered lines of one push stream; reading waits beyond.",
            "min": 1,
            "max": 100_000,
        },
    )
    stream_window_bytes: int = field(
        default=4 * MIB,
        metadata={"doc": "Bytes of unanswered lines of one push stream; one line always fits.", "min": 1024},
    )
    stream_idle_s: float = field(
        default=300.0,
        metadata={"doc": "A push stream that sends nothing this long is ended.", "min": 0.1},
    )
    max_requests: int = field(
        default=2000,
        metadata={
            "doc": "Requests in progress per listener; more are answered 503. Of a cluster's, a quarter may"
            " be pushes that take long, because a node or store server is away.",
            "min": 1,
        },
    )
    max_buffered_bytes: int = field(
        default=256 * MIB,
        metadata={"doc": "Bytes of request bodies held at a time, both listeners; more are 503.", "min": MIB},
    )
    max_connections: int = field(
        default=8000,
        metadata={
            "doc": "Connections per listener; more are closed at once. Protects descriptors: of a small limit"
            " of them there are fewer, as the log says.",
            "min": 1,
        },
    )
    header_timeout_s: float = field(
        default=10.0,
        metadata={
            "doc": "Time to send the head of a request, from its first byte or connecting.",
            "min": 0.1,
        },
    )
    body_timeout_s: float = field(
        default=30.0, metadata={"doc": "Time to send the body of a request.", "min": 0.1}
    )
    send_timeout_s: float = field(
        default=30.0, metadata={"doc": "Time for a client to read an answer.", "min": 0.1}
    )
    keep_alive_s: float = field(
        default=75.0, metadata={"doc": "How long a connection may idle between requests.", "min": 1.0}
    )
    max_header_bytes: int = field(
        default=8190,
        metadata={
            "doc": "Longest request line or header field; a request has at most 64 fields.",
            "min": 2048,
        },
    )
    token_failures_per_minute: int = field(
        default=60,
        metadata={
            "doc": "Refused tokens (a subscriber's, or the admin token) per address before it has to wait"
            " (429). An address that has shown a good token of the kind never waits: behind a balancer all"
            " requests have the same. 0: no limit.",
            "min": 0,
        },
    )
    max_line_bytes: int = field(
        default=4 * MIB,
        metadata={
            "doc": "Longest line of a push stream; a longer one is answered as too large.",
            "min": 1024,
        },
    )
    max_streams: int = field(
        default=64, metadata={"doc": "Push streams at a time; bounds what their windows hold.", "min": 1}
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """Refuse to open the admin API to others without a token, and a node that has no API at all."""
        if not (self.public_bind or self.admin_bind):
            yield "admin_bind", "is switched off, and so is web.public_bind: a web node needs one of them"
        is_open = self.admin_bind and not is_loopback(split_address(self.admin_bind)[0])
        if is_open and not (self.admin_token or self.admin_insecure):
            yield (
                "admin_bind",
                f"others can reach {self.admin_bind}: set web.admin_token, bind a loopback address,"
                " or set web.admin_insecure = true",
            )
        if self.max_many_body_bytes < self.max_payload_bytes:
            yield "max_many_body_bytes", "must not be below web.max_payload_bytes"
