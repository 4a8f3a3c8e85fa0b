"""A thread with one connection to a MySQL server: whatever saves are queued go into one transaction.

When something fails:

- A deadlock is rolled back by the server and tried again here.
- The server refuses a statement (read-only, full, locked too long): rolled back, StorageError.
  One that is read-only is left: its name may lead to another one that is the primary now.
- The connection breaks before the commit was sent: the server rolls back, UnavailableError.
- It breaks while committing: InDoubtError.

A broken connection is replaced at the next transaction.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time as clocks
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from cluster.contracts.message import SaveBatch
from cluster.errors import ConfigError, EnckeError, InDoubtError, StorageError, UnavailableError
from message.storage.clock import HeardClock
from message.storage.counters import Tally
from message.storage.limits import StoreLimits
from message.storage.mysql.config import MysqlSettings
from message.storage.mysql.connection import DRIVER_ERRORS, Connection, Trouble, explain, trouble
from message.storage.mysql.save import GroupSave, UnknownIncarnationError, introduce

log = logging.getLogger(__name__)

# A transaction that meets a deadlock again and again has bad luck; after this it is refused.
MAX_ATTEMPTS = 5
# Payload bytes of one transaction; a larger batch has one of its own.
MAX_GROUP_BYTES = 4 * 1024 * 1024
# What a message weighs there beyond its payload: its id and key, in hexadecimal, are asked for
# in one statement, up to 1.3 kB each, which must fit the server's packet (4 MB at least).
ITEM_BYTES = 2048

Change = Callable[[Connection], Any]


class Work:
    """Something to be done on the connection, and who waits for it."""

    __slots__ = ("batch", "change", "future", "is_read", "payload_bytes", "started")

    def __init__(
        self,
        future: asyncio.Future[Any],
        *,
        batch: SaveBatch | None = None,
        payload_bytes: int = 0,
        change: Change | None = None,
        is_read: bool = False,
    ) -> None:
        # Touched by the loop's thread only.
        self.future = future
        self.started = clocks.monotonic()
        # Exactly one of batch and change.
        self.batch = batch
        self.payload_bytes = payload_bytes
        self.change = change
        # Begins no transaction.
        self.is_read = is_read


class Done:
    """What became of some works, for the loop."""

    __slots__ = ("answers", "took_s", "works")

    def __init__(self, works: Sequence[Work], answers: Sequence[Any], took_s: float) -> None:
        self.works = works
        # A value, or an EnckeError that stands for it.
        self.answers = answers
        self.took_s = took_s


class Worker:
    """The thread. Works of one worker are done in the order in which they were put."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        settings: MysqlSettings,
        limits: StoreLimits,
        heard: HeardClock,
        report: Callable[[Done, Tally], None],
        on_refusal: Callable[[Exception], None],
    ) -> None:
        """Start it; connects at the first work.

        Args:
            connect: makes a connection that is ready for use, and says when it cannot; called in the thread.
            report: called in the thread after each transaction.
            on_refusal: called in the thread with what the server says when it refuses a transaction.
        """
        self._name = name
        self._connect = connect
        self._settings = settings
        self._limits = limits
        self._heard = heard
        self._report = report
        self._on_refusal = on_refusal
        self._queue: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._works: deque[Work] = deque()
        self._connection: Connection | None = None
        # Monotonic time before which a server that is away is not asked again.
        self._not_before = 0.0
        # The connection may lead to the wrong server. Set by any thread.
        self.is_stale = False
        self._thread = threading.Thread(target=self._run, name=f"mysql {name}", daemon=True)
        self._thread.start()

    def put(self, works: list[Work]) -> None:
        """Queue works. Called by the loop's thread, which bounds them."""
        self._queue.put(works)

    def join(self) -> None:
        """Finish what is queued and end the thread. Blocks; not for the loop's thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_running = True
        while is_running or self._works:
            is_running = self._take(is_running)
            if self._works:
                group = self._next_group()
                started = clocks.monotonic()
                answers, tally = self._do(group)
                self._report(Done(group, answers, clocks.monotonic() - started), tally)
        self._drop()

    def _take(self, is_running: bool) -> bool:
        """Fetch what is queued; wait only when there is nothing to do. False once the end was asked for."""
        while is_running:
            try:
                more = self._queue.get(block=not self._works)
            except Empty:
                return True
            if more is None:
                return False
            self._works += more
        return False

    def _next_group(self) -> list[Work]:
        """Saves that stand together, or one work of another kind."""
        group = [self._works.popleft()]
        room_bytes = MAX_GROUP_BYTES - _weight(group[0])
        if group[0].batch is None:
            return group
        while (
            self._works and self._works[0].batch is not None and len(group) < self._settings.max_group_saves
        ):
            room_bytes -= _weight(self._works[0])
            if room_bytes < 0:
                break
            group.append(self._works.popleft())
        return group

    def _do(self, group: list[Work]) -> tuple[list[Any], Tally]:
        """Answers in the order of the group, and what was counted if it was committed."""
        for _ in range(MAX_ATTEMPTS):
            was_idle = self._connection is not None
            started = clocks.monotonic()
            try:
                connection = self._open()
                answers, tally = self._attempt(connection, group)
            except UnknownIncarnationError:
                # They have a row now; so this happens once in a while, not once in a save.
                continue
            except EnckeError as error:
                return [error] * len(group), Tally()
            except DRIVER_ERRORS as error:
                if trouble(error) is Trouble.DEADLOCK:
                    continue
                refusal = self._on_failure(error)
                is_quick = clocks.monotonic() - started < self._settings.timeout_s / 2
                if was_idle and self._connection is None and is_quick:
                    # It broke before it was used: the server was restarted, or ended it for idling.
                    continue
                return [refusal] * len(group), Tally()
            except Exception as error:
                # A bug; the group is rolled back, the worker goes on with a new connection.
                log.exception("a transaction of the store failed")
                self._drop()
                text = f"not stored: internal error ({type(error).__name__})"
                return [StorageError(text)] * len(group), Tally()
            return self._commit(connection, group, answers, tally)
        return [StorageError("not stored: it was disturbed again and again")] * len(group), Tally()

    def _commit(
        self, connection: Connection, group: list[Work], answers: list[Any], tally: Tally
    ) -> tuple[list[Any], Tally]:
        if group[0].is_read:
            return answers, tally
        try:
            connection.execute("COMMIT")
        except DRIVER_ERRORS as error:
            self._on_failure(error)
            return [InDoubtError(f"the commit failed: {explain(error)}")] * len(group), Tally()
        return answers, tally

    def _attempt(self, connection: Connection, group: list[Work]) -> tuple[list[Any], Tally]:
        try:
            if group[0].change is not None:
                return [group[0].change(connection)], Tally()
            batches = [work.batch for work in group if work.batch is not None]
            saving = GroupSave(connection, self._limits, self._heard, batches)
            return saving.run(), saving.tally
        except UnknownIncarnationError:
            connection.execute("ROLLBACK")
            names = {work.batch.incarnation for work in group if work.batch is not None}
            introduce(connection, names - {""}, self._heard)
            raise
        except DRIVER_ERRORS as error:
            if trouble(error) is not Trouble.LOST:
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> Connection:
        """The connection, made anew if it broke.

        Raises:
            UnavailableError: the server is away. StorageError: it refuses us.
        """
        if self.is_stale:
            self.is_stale = False
            self._drop()
        if self._connection is not None:
            return self._connection
        if clocks.monotonic() < self._not_before:
            raise UnavailableError(f"the database does not answer: {self._name}")
        try:
            self._connection = self._connect()
        except (*DRIVER_ERRORS, ConfigError) as error:
            self._not_before = clocks.monotonic() + self._settings.retry_s
            raise UnavailableError(f"the database does not answer: {self._name}") from error
        return self._connection

    def _on_failure(self, error: Exception) -> EnckeError:
        """What a transaction that was not committed is answered with."""
        if trouble(error) is Trouble.LOST:
            self._drop()
            return UnavailableError(f"the connection to the database broke: {explain(error)}")
        self._on_refusal(error)
        return StorageError(f"the database refused: {explain(error)}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _weight(work: Work) -> int:
    items = 0 if work.batch is None else len(work.batch.items)
    return work.payload_bytes + items * ITEM_BYTES
