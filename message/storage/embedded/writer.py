"""The writer thread of the embedded store: whatever is queued goes into one transaction, and one commit.

Decides what shares a commit and what a failed one means. What a transaction
does is in save.py and changes.py.

When a commit fails:

- The disk is full (SQLITE_FULL): rolled back, surely not done. StorageError.
- The log could not be written or indexed: rolled back as far as this process
  goes, but a crash before the next commit might bring it back. InDoubtError that
  says so (is_rolled_back).
  The next commit overwrites it, so the writer goes on; when the disk takes
  writes again, so does the store.
- Anything else, a failed sync above all: InDoubtError, and the writer stops.
  After a failed sync the operating system may have dropped what it could not
  write and report success the next time, so only opening the file anew, from
  what is on the disk, tells the truth.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time as clocks
from collections import deque
from collections.abc import Callable
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any

from cluster.contracts.message import SaveBatch
from cluster.errors import EnckeError, InDoubtError, StorageError, UnavailableError
from message.storage.counters import Tally
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.save import Saver
from message.storage.outage import Outage

log = logging.getLogger(__name__)

# A commit that failed with these is overwritten by the next one.
_DISK_REFUSES = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN)
# The writer does not touch the file any more.
_FILE_IS_BAD = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# A commit shared by fewer says that saves come one by one: the next does not wait.
MIN_SHARED = 4

Change = Callable[[sqlite3.Connection], Any]


class Work:
    """Something to be written, and who waits for it."""

    __slots__ = ("batch", "change", "future", "is_background", "leaves_keys", "payload_bytes", "started")

    def __init__(
        self,
        future: Any,
        started: float,
        *,
        batch: SaveBatch | None = None,
        payload_bytes: int = 0,
        change: Change | None = None,
        leaves_keys: bool = False,
        is_background: bool = False,
    ) -> None:
        # asyncio.Future of the answer; only the loop's thread touches it.
        self.future = future
        # Monotonic seconds at which it was asked for.
        self.started = started
        # Exactly one of batch and change.
        self.batch = batch
        self.payload_bytes = payload_bytes
        self.change = change
        # The change does not touch the table of keys, which the saver remembers.
        self.leaves_keys = leaves_keys
        # Gives way to everything else and has a transaction of its own: it must
        # neither delay the saves by much nor fail them.
        self.is_background = is_background


class Written:
    """What became of one transaction."""

    __slots__ = ("answers", "fault", "tally", "took_s")

    def __init__(self, answers: list[tuple[Work, Any]], tally: Tally, took_s: float) -> None:
        # A value, or an EnckeError that stands for it.
        self.answers = answers
        self.tally = tally
        self.took_s = took_s
        # Why the writer stopped, None while it goes on.
        self.fault: str | None = None


class Writer:
    """One thread that owns the only writing connection."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        settings: EmbeddedSettings,
        saver: Saver,
        outage: Outage,
        report: Callable[[Written], None],
    ) -> None:
        """Start the thread. Takes over the connection.

        Args:
            outage: goes on while the disk refuses writes.
            report: called in the writer's thread after each transaction.
        """
        self._connection = connection
        self._settings = settings
        self._saver = saver
        self._outage = outage
        self._report = report
        self._queue: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._foreground: deque[Work] = deque()
        self._background: deque[Work] = deque()
        # Works in the last transaction of the foreground.
        self._last_group = 0
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, works: list[Work]) -> None:
        """Queue works in their order. Called by the loop's thread, which bounds them."""
        self._queue.put(works)

    def join(self) -> None:
        """Finish what is queued, close the connection, end the thread. Blocks; not for the loop's thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_running = True
        while True:
            is_running = self._take(is_running)
            if self._foreground:
                is_running = self._gather(is_running)
                group = self._next_group()
                self._last_group = len(group)
                self._write(group)
            # Also while saves keep coming: what has expired must not pile up.
            if self._background:
                self._write([self._background.popleft()])
            elif not is_running and not self._foreground:
                break
        self._connection.close()

    def _take(self, is_running: bool) -> bool:
        """Fetch what is queued; wait only when there is nothing to do. False once the end was asked for."""
        while is_running:
            try:
                is_idle = not self._foreground and not self._background
                works = self._queue.get(block=is_idle)
            except Empty:
                break
            if works is None:
                return False
            for work in works:
                (self._background if work.is_background else self._foreground).append(work)
        return is_running

    def _gather(self, is_running: bool) -> bool:
        """Let a group grow for a moment when the last one was shared; as _take().

        Without it the writer, woken by the first save of a turn of the loop,
        commits a handful at a time and fights the loop for the interpreter
        lock: about 60 instead of 33 us of its CPU per save (64 pushes in
        flight over HTTP; /proc/PID/task/*/schedstat of one noisy run each).
        """
        if not is_running or self._last_group < MIN_SHARED:
            return is_running
        clocks.sleep(self._settings.group_delay_s)
        return self._take(is_running)

    def _next_group(self) -> list[Work]:
        group: list[Work] = []
        room_bytes = self._settings.max_group_bytes
        while self._foreground and len(group) < self._settings.max_group_saves:
            room_bytes -= self._foreground[0].payload_bytes
            if group and room_bytes < 0:
                break
            group.append(self._foreground.popleft())
        return group

    def _write(self, group: list[Work]) -> None:
        started = clocks.monotonic()
        answers, tally = self._transact(group)
        written = Written(list(zip(group, answers, strict=True)), tally, clocks.monotonic() - started)
        written.fault = self._fault
        self._report(written)

    def _transact(self, group: list[Work]) -> tuple[list[Any], Tally]:
        """Answers in the order of the group, and what was counted if it was committed."""
        if self._fault is not None:
            return [UnavailableError(f"the store has stopped: {self._fault}")] * len(group), Tally()
        tally = Tally()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers = self._apply(group, tally)
        except sqlite3.Error as error:
            return [self._on_failed_statement(error)] * len(group), Tally()
        except Exception as error:
            # A bug; the group is rolled back, the store goes on.
            log.exception("a transaction of the store failed")
            self._roll_back()
            return [StorageError(f"not stored: internal error ({type(error).__name__})")] * len(
                group
            ), Tally()
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            return [self._on_failed_commit(error)] * len(group), Tally()
        # A full disk takes a commit that writes nothing, as when nothing has expired.
        if tally.saved and self._outage.end():
            log.warning("the disk takes writes again")
            self._reset_log()
        return answers, tally

    def _apply(self, group: list[Work], tally: Tally) -> list[Any]:
        """Do everything in its order; neighbouring saves together."""
        answers: list[Any] = []
        for is_save, works in groupby(group, key=_is_save):
            if is_save:
                batches = [work.batch for work in works if work.batch is not None]
                answers += self._saver.save(batches, tally)
            else:
                for work in works:
                    assert work.change is not None
                    answers.append(work.change(self._connection))
                    if not work.leaves_keys:
                        self._saver.forget_keys()
        return answers

    def _on_failed_statement(self, error: sqlite3.Error) -> EnckeError:
        self._roll_back()
        code = _code(error)
        if code & 0xFF in _FILE_IS_BAD:
            self._stop_for(error)
        else:
            self._log_refusal(error)
        return StorageError(f"not stored: {error}")

    def _on_failed_commit(self, error: sqlite3.Error) -> EnckeError:
        self._roll_back()
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            self._log_refusal(error)
            return StorageError(f"not stored: {error}")
        if code in _DISK_REFUSES:
            self._log_refusal(error)
            return InDoubtError(f"the commit failed: {error}", is_rolled_back=True)
        self._stop_for(error)
        return InDoubtError(f"the commit failed: {error}")

    def _roll_back(self) -> None:
        self._saver.forget_keys()
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._stop_for(error)

    def _reset_log(self) -> None:
        """Begin the write-ahead log anew after commits that failed.

        What they left behind the last good commit would look like damage after
        a crash (wal.py). Only tried: while a reader is in its way, or the
        disk is full again, the log stays.
        """
        try:
            (patience_ms,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
        except sqlite3.Error as error:
            log.warning("cannot begin the write-ahead log anew: reason=%s", error)

    def _log_refusal(self, error: sqlite3.Error) -> None:
        """Log the first failure of an episode; the next message that is stored ends it."""
        is_full = _code(error) in (sqlite3.SQLITE_FULL, *_DISK_REFUSES)
        what = ("disk full" if is_full else "cannot write") + ", messages are not stored"
        reason = f"{error} ({error.sqlite_errorname})"
        if self._outage.begin(f"{what}: {reason}"):
            log.error("%s: reason=%s", what, reason)

    def _stop_for(self, error: sqlite3.Error) -> None:
        if self._fault is None:
            self._fault = f"{error} ({getattr(error, 'sqlite_errorname', '?')})"
            log.error("the store stops and must be opened again: reason=%s", self._fault)


def _is_save(work: Work) -> bool:
    return work.batch is not None


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))
