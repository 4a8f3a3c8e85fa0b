"""Reading the embedded store: the queries, and the threads that run them.

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
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from cluster.contracts.message import Page, Stored
from cluster.errors import StorageError, UnavailableError
from cluster.mids import MAX_MID
from cluster.model import Key, Message, Mid
from message.storage.clock import StoreTime

_log = logging.getLogger(__name__)

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]

# Reads that share a transaction and a wake-up of the loop.
MAX_GROUP_READS = 16


def load_after(
    connection: sqlite3.Connection, time: StoreTime, key: Key, after: Mid, max_messages: int, max_bytes: int
) -> Page:
    """One page of a key; see MessageService.load_after()."""
    now_s = time.wall_s()
    row = connection.execute("SELECT id, trimmed, trimmed_until FROM keys WHERE key = ?", (key,)).fetchone()
    if row is None:
        return Page([], has_more=False, trimmed=Mid(0), clock=time.mid())
    key_id, trimmed, trimmed_until = row
    found = connection.execute(
        "SELECT mid, payload, expires_at FROM messages INDEXED BY messages_by_key"
        " WHERE key_id = ? AND mid > ? AND expires_at > ? ORDER BY mid LIMIT ?",
        (key_id, min(after, MAX_MID), now_s, max(max_messages, 1) + 1),
    )
    messages: list[Message] = []
    room_bytes = max_bytes
    has_more = False
    for mid, payload, expires_at in found:
        room_bytes -= len(payload)
        if messages and (len(messages) >= max_messages or room_bytes < 0):
            has_more = True
            break
        messages.append(Message(mid, payload, expires_at))
    found.close()
    mark = Mid(trimmed if trimmed_until > now_s else 0)
    return Page(messages, has_more, mark, time.mid())


def acknowledged(connection: sqlite3.Connection, key: Key, device: str) -> Mid:
    """The acknowledged mid of a device, 0 if it has none."""
    row = connection.execute(
        "SELECT mid FROM acknowledged WHERE key = ? AND device = ?", (key, device)
    ).fetchone()
    return Mid(row[0] if row else 0)


def inspect(connection: sqlite3.Connection, time: StoreTime, key: Key) -> Stored:
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

    def __init__(self, connections: Iterable[sqlite3.Connection], max_queued: int) -> None:
        """Start the threads. Takes over the connections.

        Args:
            max_queued: reads that may wait or run; more are refused.
        """
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Query[Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._max_queued = max_queued
        # Asked for and not answered yet. Changed only on the loop.
        self.queued = 0
        self._threads = [
            threading.Thread(target=self._run, args=(connection,), name=f"store-reader-{n}", daemon=True)
            for n, connection in enumerate(connections)
        ]
        for thread in self._threads:
            thread.start()

    def read(self, query: Query[T]) -> asyncio.Future[T]:
        """Run a query in one of the threads.

        Cancellation: cancelling the future only stops waiting.

        Raises (through the future):
            StorageError: the store cannot be read.
            UnavailableError: too many reads wait.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self.queued >= self._max_queued:
            future.set_exception(UnavailableError("too many reads wait for the store"))
            return future
        self.queued += 1
        self._queue.put((query, future))
        return future

    def join(self) -> None:
        """Finish what was asked for and end the threads. Blocks; not for the loop's thread."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, connection: sqlite3.Connection) -> None:
        is_running = True
        while is_running:
            group: list[tuple[Query[Any], asyncio.Future[Any]]] = []
            job = self._queue.get()
            while job is not None:
                group.append(job)
                if len(group) == MAX_GROUP_READS:
                    break
                try:
                    job = self._queue.get_nowait()
                except Empty:
                    break
            else:
                is_running = False
            if group:
                answers = _answer(connection, group)
                self._loop.call_soon_threadsafe(self._deliver, answers)
        connection.close()

    def _deliver(self, answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
        self.queued -= len(answers)
        for future, answer in answers:
            if future.done():
                continue
            if isinstance(answer, StorageError):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _answer(
    connection: sqlite3.Connection, group: list[tuple[Query[Any], asyncio.Future[Any]]]
) -> list[tuple[asyncio.Future[Any], Any]]:
    """Run queries in one read transaction: a key's mark and its messages belong together."""
    answers: list[tuple[asyncio.Future[Any], Any]] = []
    try:
        connection.execute("BEGIN")
    except sqlite3.Error as error:
        return [(future, _storage_error(error)) for _, future in group]
    for query, future in group:
        if future.cancelled():
            answers.append((future, None))
            continue
        try:
            answers.append((future, query(connection)))
        except sqlite3.Error as error:
            answers.append((future, _storage_error(error)))
        except Exception:
            # A bug in a query: this reader goes on for the others.
            _log.exception("a read of the store failed")
            answers.append((future, StorageError("cannot read the store: internal error")))
    # Ending a read transaction cannot fail in a way that matters; the next BEGIN would tell.
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    return answers


def _storage_error(error: sqlite3.Error) -> StorageError:
    _log.error("cannot read the store: %s (%s)", error, getattr(error, "sqlite_errorname", "?"))
    return StorageError(f"cannot read the store: {error}")
