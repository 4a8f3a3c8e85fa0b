"""Parts of a comet node on their own: connections on transports in memory, in a context that takes notes."""

from __future__ import annotations

from collections.abc import Callable

from cluster.model import Mid
from comet.codec.protocol import ClientVersion, CloseReason
from comet.codec.wires import TcpWire, Wire
from comet.subscribers.connection import Connection
from tests.support.transport import MemoryTransport

NOW = 1000.0


class Context:
    """What connections share; notes what they report."""

    def __init__(self, unread_limit_bytes: int = 1000) -> None:
        self.unread_limit_bytes = unread_limit_bytes
        self.linger_s = 2.0
        self.closes: list[CloseReason] = []
        self.acknowledged: list[Mid] = []
        self.lingering: list[Connection] = []
        self.forgotten: list[Connection] = []
        self.dropped: dict[CloseReason, int] = {}
        # Takes an ended connection out of its channel, where there is one.
        self.detach: Callable[[Connection], None] = lambda connection: None

    def on_close(self, connection: Connection, reason: CloseReason) -> None:
        self.closes.append(reason)
        self.detach(connection)

    def on_drop(self, reason: CloseReason, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def on_acknowledge(self, connection: Connection, mid: Mid) -> None:
        self.acknowledged.append(mid)

    def linger(self, connection: Connection) -> None:
        self.lingering.append(connection)

    def forget(self, connection: Connection) -> None:
        self.forgotten.append(connection)


def make_connection(
    context: Context | None = None, *, wire: Wire | None = None, heartbeat_s: int = 30
) -> tuple[Connection, MemoryTransport]:
    """A live connection and its transport."""
    wire = wire or TcpWire(ClientVersion.TWO)
    transport = MemoryTransport()
    shared = context or Context()
    return Connection(shared, transport, wire, "phone", heartbeat_s, NOW, 1_700_000_000), transport
