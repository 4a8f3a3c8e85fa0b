"""The registry of one machine without ZooKeeper: kept by the process that starts the others.

Every one of them has a connection of its own, one end of a socket pair that it
inherited. What it announced stands for as long as that connection: a process
that dies is gone from the registry in the same moment.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import msgspec

from cluster.model import NodeInfo
from cluster.registry.base import Snapshot
from cluster.registry.localwire import (
    Announce,
    Named,
    News,
    Present,
    Request,
    Sync,
    Synced,
    Withdraw,
    decode_request,
    encode,
    open_end,
)

log = logging.getLogger(__name__)

# News that a process has not read: above it, the process hangs, and its connection is ended.
MAX_UNREAD_BYTES = 8 * 1024 * 1024


class RegistryServer:
    """Who is alive, among the processes of one machine."""

    def __init__(self, generation: int) -> None:
        """Keep nothing yet.

        Args:
            generation: first part of the epochs; higher than that of each earlier
                server of the same store, so that incarnations never repeat.
        """
        self._generation = generation
        self._changes = 0
        # In order of registration, each under the change that made it.
        self._entries: dict[int, NodeInfo] = {}
        self._connections: dict[object, _Connection] = {}

    def connect(self) -> tuple[socket.socket, object]:
        """Make a connection; needs a running loop.

        Returns:
            The end for a LocalRegistry, which the caller hands on and closes; and the
            name of the connection for disconnect().
        """
        mine, other = socket.socketpair()
        connection = _Connection(self, mine)
        self._connections[connection] = connection
        connection.start()
        return other, connection

    async def disconnect(self, name: object) -> None:
        """End a connection, and with it what was announced there. May be called more than once."""
        connection = self._connections.get(name)
        if connection is not None:
            await connection.stop()

    async def stop(self) -> None:
        """End all connections."""
        await asyncio.gather(*(connection.stop() for connection in list(self._connections.values())))

    @property
    def snapshot(self) -> Snapshot:
        """Who is there."""
        return Snapshot(
            epoch=(self._generation, self._changes),
            nodes=tuple(self._entries.values()),
            instances=frozenset(node.instance for node in self._entries.values()),
        )

    # -- for the connections

    def announce(self, made_by: int | None, info: NodeInfo) -> tuple[int, str]:
        """Make an entry, or replace what one announces.

        Returns:
            The change that made it, and its incarnation.
        """
        self._changes += 1
        made_by = self._changes if made_by is None else made_by
        instance = f"{self._generation:x}-{made_by:x}"
        self._entries[made_by] = msgspec.structs.replace(info, instance=instance)
        self._tell_all()
        return made_by, instance

    def remove(self, changes: list[int]) -> None:
        """Remove the entries that these changes made."""
        if not changes:
            return
        for made_by in changes:
            del self._entries[made_by]
        self._changes += 1
        self._tell_all()

    def leave(self, connection: _Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)

    def _tell_all(self) -> None:
        line = encode(Present(self.snapshot))
        for connection in list(self._connections.values()):
            connection.tell_line(line)


class _Connection:
    """One process, and what it announces."""

    def __init__(self, server: RegistryServer, end: socket.socket) -> None:
        self._server = server
        self._end = end
        self._writer: asyncio.StreamWriter | None = None
        # The client's number of an entry → the change that made it.
        self._entries: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve it."""
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """End it; what was announced is gone when this returns."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        # A task that was cancelled before its first step has not run its end.
        self._close()

    def tell_line(self, line: bytes) -> None:
        """Send one line, unless it does not read, or has just died."""
        # uvloop raises when a transport that has closed is written to, and the task that
        # will notice may run later than this.
        if self._writer is None or self._writer.transport.is_closing():
            return
        self._writer.write(line)
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            log.error("a process does not read who is alive; its registration is ended")
            self._writer.transport.abort()

    async def _serve(self) -> None:
        try:
            reader, self._writer = await open_end(self._end)
            self._tell(Present(self._server.snapshot))
            while line := await reader.readline():
                self._take(decode_request(line))
        except OSError as error:
            # It went while it was told something.
            log.debug("a registration has ended: reason=%r", error)
        except ValueError as error:
            # Not understood, or longer than a line may be.
            log.error("a registration is ended: reason=%r", error)
        finally:
            self._close()

    def _take(self, request: Request) -> None:
        match request:
            case Announce(entry, info):
                made_by, instance = self._server.announce(self._entries.get(entry), info)
                self._entries[entry] = made_by
                self._tell(Named(entry, instance))
            case Withdraw(entry):
                if entry in self._entries:
                    self._server.remove([self._entries.pop(entry)])
            case Sync(number):
                self._tell(Synced(number))

    def _tell(self, news: News) -> None:
        self.tell_line(encode(news))

    def _close(self) -> None:
        if self._writer is None:
            self._end.close()
        else:
            self._writer.close()
            self._writer = None
        self._server.leave(self)
        entries, self._entries = self._entries, {}
        self._server.remove(list(entries.values()))
