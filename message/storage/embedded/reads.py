"""Reading the embedded store: the threads that do it, and all queries but pages (pages.py).

Reads do not run on the event loop: 1,000 messages of one key lie in up to
1,000 pages, and on a cold disk each is a wait. What has been asked for
meanwhile is read in one transaction and answered by one wake-up of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable
from itertools import repeat
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from cluster.contracts.message import Stored
from cluster.errors import StorageError
from cluster.model import Key, Mid
from message.storage.embedded.clock import EmbeddedClock
from message.storage.embedded.pages import Load, Loaded, load_pages

log = logging.getLogger(__name__)

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]
# What to read, and who waits for it.
_Job = tuple[Load | Query[Any], asyncio.Future[Any]]

# Reads that share a transaction and a wake-up of the loop.
MAX_GROUP_READS = 64


def acknowledged(connection: sqlite3.Connection, key: Key, device: str) -> Mid:
    """The acknowledged mid of a device, 0 if it has none."""
    row = connection.execute(
        "SELECT mid FROM acknowledged WHERE key = ? AND device = ?", (key, device)
    ).fetchone()
    return Mid(row[0] if row else 0)


def is_fenced(connection: sqlite3.Connection, incarnation: str, clock_s: int) -> bool:
    """Whether saves of an incarnation are refused."""
    return (
        connection.execute(
            "SELECT 1 FROM fences WHERE incarnation = ? AND until > ?", (incarnation, clock_s)
        ).fetchone()
        is not None
    )


def inspect(connection: sqlite3.Connection, time: EmbeddedClock, key: Key) -> Stored:
    """Count what is stored for a key and has not expired."""
    counted = connection.execute(
        "SELECT count(*), ifnull(sum(length(m.payload)), 0), ifnull(min(m.mid), 0), ifnull(max(m.mid), 0)"
        " FROM keys k JOIN messages m ON m.key_id = k.id WHERE k.key = ? AND m.expires_at > ?",
        (key, time.wall_s()),
    ).fetchone()
    devices = connection.execute("SELECT device, mid FROM acknowledged WHERE key = ?", (key,)).fetchall()
    messages, payload_bytes, first, last = counted
    return Stored(messages, payload_bytes, first, last, dict(devices))


class Readers:
    """Threads with a connection each, fed from the event loop."""

    def __init__(
        self,
        connections: Iterable[sqlite3.Connection],
        time: EmbeddedClock,
        on_answered: Callable[[int], None],
    ) -> None:
        """Start the threads. Takes over the connections.

        Args:
            on_answered: told in the loop how many reads are answered. Whoever asks bounds them.
        """
        self._loop = asyncio.get_running_loop()
        self._time = time
        self._on_answered = on_answered
        self._queue: SimpleQueue[list[_Job] | None] = SimpleQueue()
        # What was asked for in this turn of the loop: one wake-up of a thread for all.
        self._turn: list[_Job] = []
        self._threads = [
            threading.Thread(target=self._run, args=(connection,), name=f"store-reader-{n}", daemon=True)
            for n, connection in enumerate(connections)
        ]
        for thread in self._threads:
            thread.start()

    def load(self, load: Load) -> asyncio.Future[Loaded]:
        """Read a page; as read()."""
        future: asyncio.Future[Loaded] = self._loop.create_future()
        self._put(load, future)
        return future

    def read(self, query: Query[T]) -> asyncio.Future[T]:
        """Run a query in one of the threads.

        Cancellation: cancelling the future only stops waiting.

        Raises (through the future):
            StorageError: the store cannot be read.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(query, future)
        return future

    def flush(self) -> None:
        """Hand what was asked for to the threads; happens by itself at the end of each turn."""
        for start in range(0, len(self._turn), MAX_GROUP_READS):
            self._queue.put(self._turn[start : start + MAX_GROUP_READS])
        self._turn = []

    def join(self) -> None:
        """Finish what was flushed and end the threads. Blocks; not for the loop's thread."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _put(self, request: Load | Query[Any], future: asyncio.Future[Any]) -> None:
        if not self._turn:
            self._loop.call_soon(self.flush)
        self._turn.append((request, future))

    def _run(self, connection: sqlite3.Connection) -> None:
        is_running = True
        while is_running:
            jobs: list[_Job] = []
            more = self._queue.get()
            while more is not None:
                jobs += more
                if len(jobs) >= MAX_GROUP_READS:
                    break
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
            else:
                is_running = False
            if jobs:
                answers = self._answer(connection, jobs)
                self._loop.call_soon_threadsafe(self._deliver, jobs, answers)
        connection.close()

    def _answer(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[Any]:
        """Read everything in one transaction: a key's mark and its messages belong together."""
        loads = [request for request, _ in jobs if isinstance(request, Load)]

        def read_pages(connection: sqlite3.Connection) -> list[Loaded]:
            return load_pages(connection, self._time, loads) if loads else []

        try:
            connection.execute("BEGIN")
        except sqlite3.Error as error:
            return [_storage_error(error)] * len(jobs)
        pages = _run_query(read_pages, connection)
        ready = iter(pages) if isinstance(pages, list) else repeat(pages)
        answers = [
            next(ready) if isinstance(request, Load) else _run_query(request, connection)
            for request, _ in jobs
        ]
        # Ending a read transaction cannot fail in a way that matters; the next BEGIN would tell.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return answers

    def _deliver(self, jobs: list[_Job], answers: list[Any]) -> None:
        self._on_answered(len(jobs))
        for (_, future), answer in zip(jobs, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, StorageError):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _run_query(query: Query[T], connection: sqlite3.Connection) -> T | StorageError:
    try:
        return query(connection)
    except sqlite3.Error as error:
        return _storage_error(error)
    except Exception:
        # A bug in a query: the reader goes on for the others.
        log.exception("a read of the store failed")
        return StorageError("cannot read the store: internal error")


def _storage_error(error: sqlite3.Error) -> StorageError:
    log.error("cannot read the store: reason=%s code=%s", error, getattr(error, "sqlite_errorname", "?"))
    return StorageError(f"cannot read the store: {error}")
