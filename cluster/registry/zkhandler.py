"""How kazoo's thread and the event loop meet.

kazoo runs one thread for its socket. Whatever it would call, in two more threads
of its own, enters the event loop by call_soon_threadsafe instead, in the order
in which that thread met it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

log = logging.getLogger(__name__)

# As many attempts to connect have their time before the session is over.
MIN_TRIES = 4


class LoopHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """Gives kazoo its thread, and runs its callbacks in the event loop instead of two more threads."""

    # Callbacks go to the loop also before kazoo starts its workers, which do not exist here.
    running = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect_timeout_s: float,
        session_timeout_s: float,
        has_session: Callable[[], bool],
        on_ended: Callable[[], None],
    ) -> None:
        super().__init__()
        self._loop = loop
        self._connect_timeout_s = min(connect_timeout_s, session_timeout_s / MIN_TRIES)
        self._session_timeout_s = session_timeout_s
        self._has_session = has_session
        self._on_ended = on_ended
        self._socket: socket.socket | None = None
        # For the next server that is slow to give a session; doubled for each that was too slow.
        self._patience_s = self._connect_timeout_s
        self.completion_queue = _LoopQueue(loop)

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def dispatch_callback(self, callback: Any) -> None:
        """Run a watch."""
        enter(self._loop, callback.func, *callback.args)

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect to one server, for less than kazoo's whole session timeout: another may answer.

        Nor is a session awaited for longer. A server that is just starting takes
        the question, and may never answer it.
        """
        kwargs["timeout"] = min(kwargs["timeout"], self._connect_timeout_s)
        self._socket = super().create_connection(*args, **kwargs)
        enter(self._loop, self._loop.call_later, self._patience_s, self._expect_session, self._socket)
        return self._socket

    def _expect_session(self, connection: socket.socket) -> None:
        if self._has_session():
            self._patience_s = self._connect_timeout_s
        elif connection is self._socket:
            self._patience_s = min(2 * self._patience_s, self._session_timeout_s)
            self.cut()

    def cut(self) -> None:
        """End what kazoo waits for: it waits for an answer as long as for the whole session."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def spawn(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        """Run kazoo's loop, and tell when it has ended."""

        def run() -> None:
            try:
                func(*args, **kwargs)
            except Exception:
                log.exception("the session with ZooKeeper broke; a new one is begun")
            finally:
                enter(self._loop, self._on_ended)

        thread = threading.Thread(target=run, name="zookeeper", daemon=True)
        thread.start()
        return thread


class _LoopQueue:
    """Stands for kazoo's queue of completions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def put(self, call: Callable[[], object]) -> None:
        """Run a completion."""
        enter(self._loop, call)


def enter(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: Any) -> None:
    """Call in the loop, in the order of these calls. A loop that is closed needs to know nothing."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
