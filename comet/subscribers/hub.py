"""All channels of this node.

A channel exists while its key has a connection; a push to an offline key
leaves nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key
from cluster.storeclocks import StoreClocks
from comet.codec.protocol import CloseReason
from comet.subscribers.channel import Channel
from comet.subscribers.connection import Connection


class Hub:
    """Key → channel."""

    def __init__(
        self,
        clocks: StoreClocks,
        max_connections_per_key: int,
        call_later: Callable[[float, Callable[[Key], None], Key], object],
    ) -> None:
        """Make an empty hub.

        Args:
            max_connections_per_key: protects memory from one key opened in a loop.
            call_later: the loop's; for channels that must outlive their last connection.
        """
        self._clocks = clocks
        self._max_connections_per_key = max_connections_per_key
        self._call_later = call_later
        self._channels: dict[Key, Channel] = {}
        # The channel of a key, or None when nobody is connected: bound once,
        # because every delivery asks.
        self.channel = self._channels.get
        # Keys whose channel may lack what is stored: nobody knows what became of a save. What is not
        # stored must not be delivered before the store was read, or it would hide that for ever.
        self.doubtful: set[Key] = set()
        # Keys that a timer will look at: their channels had to outlive the last connection.
        self._kept: set[Key] = set()
        self.connection_count = 0

    @property
    def channel_count(self) -> int:
        """Keys with at least one connection (or very recently)."""
        return len(self._channels)

    def attach(self, key: Key, connection: Connection) -> bool:
        """Put a connection into its key's channel; False when the key has too many."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = Channel(key, self._clocks.now(key))
        elif len(channel) >= self._max_connections_per_key:
            return False
        channel.add(connection)
        self.connection_count += 1
        return True

    def detach(self, connection: Connection) -> None:
        """Take a connection out of its channel; does nothing when it is in none."""
        channel = connection.channel
        if channel is None:
            return
        channel.remove(connection)
        self.connection_count -= 1
        if not len(channel):
            self._drop(channel.key)

    def doubt(self, key: Key) -> None:
        """A key may have something stored that its channel has not delivered. A new channel lacks nothing."""
        if key in self._channels:
            self.doubtful.add(key)

    def keys(self) -> list[Key]:
        """The keys of all channels."""
        return list(self._channels)

    def connections(self) -> Iterator[Connection]:
        """Every live connection; the hub must not change meanwhile, so take a list to wait or close."""
        for channel in self._channels.values():
            yield from channel.connections()

    def close_key(self, key: Key, reason: CloseReason) -> int:
        """Close a key's connections; how many."""
        channel = self._channels.get(key)
        connections = channel.connections() if channel is not None else []
        for connection in connections:
            connection.close(reason)
        return len(connections)

    def _drop(self, key: Key) -> None:
        channel = self._channels.get(key)
        if channel is None or len(channel):
            return
        lead = channel.cursor - self._clocks.now(key)
        if lead > 0:
            # A burst has run ahead of the store's clock by `lead` ticks (100 ns).
            # Forgetting the cursor now would let the store settle a mid below
            # one that was sent, and a subscriber resuming from that would miss it.
            # One timer: after the store's clock was set back by an hour this takes an hour.
            if key not in self._kept:
                self._kept.add(key)
                self._call_later(lead / TICKS_PER_SECOND + 0.001, self._look_again, key)
        else:
            del self._channels[key]
            self.doubtful.discard(key)

    def _look_again(self, key: Key) -> None:
        self._kept.discard(key)
        self._drop(key)
