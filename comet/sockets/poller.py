"""Readiness of the subscribers' sockets: an epoll of their own, itself watched by the event loop.

The loop's own transports are made for everything that asyncio can do. They
take 1.3 KB a socket, and a subscription 5 us more than these sockets, which
only do what subscribers need (bench/connections.py).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
# Sockets served in one turn of the loop: 2 ms of heartbeats, 6 ms of subscriptions, then others have
# their turn. The kernel keeps the rest in line.
MAX_EVENTS = 128


class Watched(Protocol):
    """What a poller tells."""

    def on_ready(self, mask: int) -> None:
        """READABLE, WRITABLE or both; EPOLLHUP and EPOLLERR come unasked."""
        ...

    def abort(self) -> None:
        """End: on_ready() has raised, or the poller stops. Must call unwatch()."""
        ...


class Poller:
    """Watches descriptors from start() to stop()."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        """Make a poller.

        Args:
            now: seconds, in ticks of a millisecond as uvloop's.
        """
        self.now = now
        self._loop = loop
        self._epoll = select.epoll()
        # By descriptor; the kernel gives the lowest that is free, so there are few holes.
        self._watched: list[Watched | None] = []
        # What comes in the next turn of the loop.
        self._waiting: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to watch."""
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def stop(self) -> None:
        """Abort what is still watched, and do what waits for the next turn. May be called again."""
        if self._epoll.closed:
            return
        for watched in self._watched:
            if watched is not None:
                watched.abort()
        while self._waiting:
            self._take_waiting()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, descriptor: int, mask: int, watched: Watched) -> None:
        """Tell from now on when a descriptor is ready.

        Raises:
            OSError: the kernel has no room for it; nothing is watched then.
        """
        self._epoll.register(descriptor, mask)
        try:
            self._watched[descriptor] = watched
        except IndexError:
            self._watched += [None] * (descriptor + 1 - len(self._watched))
            self._watched[descriptor] = watched

    def change(self, descriptor: int, mask: int) -> None:
        """Tell other things than before."""
        self._epoll.modify(descriptor, mask)

    def unwatch(self, descriptor: int) -> None:
        """Tell no more; before the descriptor is closed.

        A socket that ends in a turn is closed after it (next_turn()): its descriptor could be
        given away at once, and what the turn still has for it be taken for the new one's.
        """
        self._watched[descriptor] = None
        self._epoll.unregister(descriptor)

    def next_turn(self, call: Callable[[], None]) -> None:
        """Call in the next turn of the loop, or in stop(); in the order of asking."""
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._take_waiting)

    def report(self, error: Exception) -> None:
        """Have the loop tell of a bug that cost one socket."""
        self._loop.call_exception_handler({"message": "fault at a subscriber's socket", "exception": error})

    def _turn(self) -> None:
        sockets = self._watched
        for descriptor, mask in self._epoll.poll(0, MAX_EVENTS):
            watched = sockets[descriptor]
            if watched is None:
                # It has ended in this turn.
                continue
            try:
                watched.on_ready(mask)
            except Exception as error:
                # A bug: it costs its own socket, not those beside it.
                self.report(error)
                watched.abort()

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            try:
                call()
            except Exception as error:
                self.report(error)
