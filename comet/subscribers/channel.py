"""Live connections of one key on this node.

Decides who receives a message now. Stores nothing and does not know which node
owns the key.
"""

from __future__ import annotations

import msgspec

from cluster.model import Key, Mid
from comet.codec.protocol import ClientVersion, gap_document
from comet.subscribers.connection import Connection
from comet.subscribers.outgoing import Outgoing


class Channel(msgspec.Struct, eq=False, gc=False):
    """All connections of one key, and how far they have been served.

    A struct that the garbage collector does not follow, for the reasons of Connection.
    """

    key: Key
    # Highest mid delivered here, at first the store's clock: nothing older is replayed. A saved
    # message whose predecessor is above it reveals a hole, which pushing/delivering.py fills
    # from the store first.
    cursor: Mid
    # In order of arrival. Changed only by add() and remove(). One connection
    # stands here without a container (memory: bench/connections.py).
    _connections: Connection | list[Connection] | None = None

    def __len__(self) -> int:
        held = self._connections
        if held is None:
            return 0
        return len(held) if isinstance(held, list) else 1

    def add(self, connection: Connection) -> None:
        """Attach a connection; the hub has checked the limit."""
        held = self._connections
        if held is None:
            self._connections = connection
        elif isinstance(held, list):
            held.append(connection)
        else:
            self._connections = [held, connection]
        connection.channel = self

    def remove(self, connection: Connection) -> None:
        """Detach a connection that is attached here."""
        connection.channel = None
        held = self._connections
        if isinstance(held, list):
            held.remove(connection)
            if len(held) == 1:
                self._connections = held[0]
        else:
            self._connections = None

    def connections(self) -> list[Connection]:
        """The connections of this moment, in order of arrival."""
        held = self._connections
        if held is None:
            return []
        return list(held) if isinstance(held, list) else [held]

    def deliver(self, message: Outgoing) -> int:
        """Offer a message to every connection.

        Never waits: a slow consumer is closed and not counted. Those that still
        catch up hold the message and count.

        Ordering: called only at the key's turn in its queue (pushing/keyqueue.py), so
        that each connection sees mids in the order in which they were settled.

        Returns:
            How many connections took it.
        """
        if message.mid > self.cursor:
            self.cursor = message.mid
        held = self._connections
        if held is None:
            return 0
        if not isinstance(held, list):
            # As _give(), with a call less: most channels have one connection. A number on the wire, not
            # a truth value.
            if held.catch_up is None:
                return 1 if held.offer(message.mid, message.frame_for(held.wire)) else 0
            return 1 if held.catch_up.hold(message) else 0
        # A copy: closing a slow consumer removes it from the list.
        return sum([_give(connection, message) for connection in list(held)])

    def announce_gap(self, before: Mid | None) -> int:
        """Tell live connections of version 2 that messages after the cursor were removed; how many."""
        document = gap_document(self.cursor, before)
        told = 0
        for connection in self.connections():
            wire = connection.wire
            if wire.version is ClientVersion.TWO and connection.catch_up is None:
                told += connection.write(wire.frame(document))
        return told


def _give(connection: Connection, message: Outgoing) -> bool:
    if connection.catch_up is not None:
        return connection.catch_up.hold(message)
    return connection.offer(message.mid, message.frame_for(connection.wire))
