"""What calls between nodes count. One place for the names; see docs/behaviour.md.

The hot path adds to a counter for each call taken and for each joined read and
write; what a client knows anyway (its calls, those in flight) is only read
when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.stats import Stats

_BYTES_TEXT = "Bytes of calls and answers, by who began the connection: we (client), or they (server)."


class Traffic:
    """Bytes of one side's connections; each link adds to it."""

    def __init__(self, stats: Stats, side: str) -> None:
        self.sent = stats.counter("rpc_sent_bytes_total", _BYTES_TEXT, "side").child(side)
        self.received = stats.counter("rpc_received_bytes_total", _BYTES_TEXT, "side").child(side)


class Client(Protocol):
    """What is read of a client when somebody looks."""

    @property
    def service(self) -> str: ...
    @property
    def call_count(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def is_up(self) -> bool: ...


class ClientMetrics:
    """Calls that this process makes. One for all its clients."""

    def __init__(self, stats: Stats) -> None:
        """Register the names; only once per `stats`."""
        self._clients: set[Client] = set()
        # Calls of clients that were stopped, by service.
        self._past: dict[str, int] = {}
        self.errors = stats.counter(
            "rpc_client_errors_total", "Calls of this node that failed, by code.", "code"
        )
        self.connects = stats.counter(
            "rpc_client_connects_total", "Connections made to other nodes, by what these serve.", "service"
        )
        self.traffic = Traffic(stats, "client")
        stats.totals(
            "rpc_client_calls_total", "Calls to other nodes, by what these serve.", "service", self._calls
        )
        stats.gauges(
            "rpc_client_connections",
            "Other nodes that take calls of this one.",
            "service",
            lambda: self._sum(lambda client: client.is_up),
        )
        stats.gauges(
            "rpc_client_in_flight",
            "Calls that wait for their answers.",
            "service",
            lambda: self._sum(lambda client: client.in_flight),
        )

    def add(self, client: Client) -> None:
        """A client was started."""
        self._clients.add(client)

    def remove(self, client: Client) -> None:
        """It was stopped; what it counted stays. May be called again."""
        if client in self._clients:
            self._clients.remove(client)
            self._past[client.service] = self._past.get(client.service, 0) + client.call_count

    def _calls(self) -> dict[str, float]:
        calls = self._sum(lambda client: client.call_count)
        for service, count in self._past.items():
            calls[service] = calls.get(service, 0) + count
        return calls

    def _sum(self, read: Callable[[Client], float]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for client in self._clients:
            sums[client.service] = sums.get(client.service, 0) + read(client)
        return sums


class ServerMetrics:
    """Calls that this process takes."""

    def __init__(self, stats: Stats) -> None:
        """Register the names."""
        self._stats = stats
        self.calls = stats.counter("rpc_server_calls_total", "Calls of other nodes that were begun.")
        self.errors = stats.counter(
            "rpc_server_errors_total",
            "Calls of other nodes answered with an error, by code.",
            "code",
        )
        self.traffic = Traffic(stats, "server")

    def watch(self, connections: Callable[[], float], in_progress: Callable[[], float]) -> None:
        """Read these of a server when somebody looks; only once per `stats`."""
        self._stats.gauge("rpc_server_connections", "Connections of other nodes.", connections)
        self._stats.gauge("rpc_server_in_progress", "Calls of other nodes that are worked on.", in_progress)
