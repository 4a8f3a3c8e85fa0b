"""Serves calls of other nodes: a table of methods behind one listening address.

Decides who is let in (handshake.py) and how a server stops. What happens to a
call is in dispatch.py: handlers return a future or a coroutine; each call is
answered exactly once, at its deadline at the latest, and its handler's future
is never cancelled because a caller has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from cluster.errors import UnavailableError
from cluster.listening import serve
from cluster.rpc.config import RpcConfig
from cluster.rpc.handshake import VERSION, Versions
from cluster.rpc.link import Link
from cluster.rpc.methods import Route, by_number
from cluster.rpc.metrics import ServerMetrics
from cluster.rpc.session import ServerContext, Session
from cluster.stats import Stats

DEFAULT_BIND = "127.0.0.1:0"

# Connections of a cluster that starts all at once.
BACKLOG = 1024

# For the last answers to leave, after the last call is done.
LAST_WORDS_S = 0.5


class RpcServer:
    """One listening address."""

    def __init__(
        self,
        service: str,
        routes: Iterable[Route],
        config: RpcConfig,
        versions: Versions | None = None,
        stats: Stats | None = None,
    ) -> None:
        """Prepare a server that does not listen yet.

        Args:
            service: what is served; clients that look for something else are refused.
            versions: protocol versions to speak; by default those of this code.
            stats: where it counts, for one server; None = nowhere.

        Raises:
            ValueError: two methods have the same number.
        """
        metrics = ServerMetrics(stats or Stats())
        metrics.watch(lambda: self.connections, lambda: self.in_progress)
        spoken = versions or Versions.up_to(VERSION)
        self._context = ServerContext(service, by_number(routes), config, spoken, metrics)
        self._server: asyncio.Server | None = None
        self.address = ""

    @property
    def connections(self) -> int:
        """Peers connected, known or not."""
        return len(self._context.sessions)

    @property
    def in_progress(self) -> int:
        """Calls that handlers work on for connected peers."""
        return sum(session.in_progress for session in self._context.sessions)

    async def start(self, bind: str = DEFAULT_BIND) -> None:
        """Listen on "host:port" (port 0 = any free one); `address` tells which.

        Raises:
            OSError: the address cannot be bound.
            ValueError: it is none.
        """
        self._server, self.address = await serve(self._accept, bind, BACKLOG)

    def _accept(self) -> Link:
        return Session(self._context).link

    async def stop(self, finish_s: float = 5.0) -> None:
        """Take no new peers and calls, finish the calls in progress, close the connections.

        Args:
            finish_s: how long to wait for calls in progress; then their
                callers find the connection closed.
        """
        self._context.stopping.set()
        if self._server is not None:
            self._server.close()
        sessions = list(self._context.sessions)
        for session in sessions:
            session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(finish_s):
                for session in sessions:
                    await session.wait_idle()
        for session in sessions:
            session.link.close(UnavailableError("this node has stopped"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                for session in sessions:
                    await session.link.wait_closed()
        for session in sessions:
            session.link.abort(UnavailableError("this node has stopped"))
            await session.link.wait_closed()
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        tasks = list(self._context.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
