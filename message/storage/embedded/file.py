"""The embedded store's files: lock the directory, make or check the database, open connections to it.

Files of a data directory: ``store.db``, while it is open ``store.db-wal`` (the
write-ahead log) and ``store.db-shm``, and ``lock``. A store that was stopped
orderly has no log left.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from cluster.errors import ConfigError
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.directory import LOCK_NAME, make_locked
from message.storage.embedded.schema import APPLICATION_ID, migrate
from message.storage.embedded.wal import lost_commits

log = logging.getLogger(__name__)

FILE_NAME = "store.db"
HEADER = b"SQLite format 3\0"
# The first with JSON functions whatever it was built with; STRICT tables came one before.
MIN_SQLITE = (3, 38, 0)
# Pages of the log after which they are copied into the database: 16 MB. Pages that change
# often are then copied once for many commits; SQLite's 1,000 costs a fifth more CPU per save.
CHECKPOINT_PAGES = 4000
WRITER_CACHE_KIB = 32 * 1024
READER_CACHE_KIB = 4 * 1024
MAX_IDLE_LOG_BYTES = 64 * 1024 * 1024
# Somebody else's writing transaction (a shell on the file) is waited for this long.
BUSY_TIMEOUT_S = 5.0
READ_AHEAD_BYTES = 1024 * 1024


class DirectoryLock:
    """Keeps a second process out of a data directory, for as long as this one holds it or lives."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if it is missing, and lock it.

        Raises:
            ConfigError: it is in use, or cannot be made or written.
        """
        self._descriptor = make_locked(directory)
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            # A full disk: the lock holds without the number, which is only for people.
            log.warning("cannot write the process id: path=%s", directory / LOCK_NAME)

    def release(self) -> None:
        """Let others in. The file stays: removing it would race with one who has just opened it."""
        os.close(self._descriptor)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def open_database(directory: Path, settings: EmbeddedSettings) -> sqlite3.Connection:
    """Make or check the database, bring it to the present version, open the writer's connection.

    The caller holds the lock. May take long: a large database is read whole
    after an unclean stop.

    Raises:
        ConfigError: the file is damaged, foreign or of a newer version.
        OSError, sqlite3.Error: what told_to_operator() translates.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise ConfigError(
            [f"SQLite {'.'.join(map(str, MIN_SQLITE))} is needed, this is {sqlite3.sqlite_version}"]
        )
    path = directory / FILE_NAME
    if path.exists():
        is_clean = _check_files(path, settings)
        _check_content(path, settings, is_clean=is_clean)
    else:
        _create(path)
    return _open_writing(path, settings)


@contextmanager
def told_to_operator(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a database is opened into a ConfigError that says what to do."""
    try:
        yield
    except OSError as error:
        raise ConfigError([f"cannot use {error.filename or path}: {error.strerror}"]) from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise _damaged(path, str(error)) from error
        is_shut = name.startswith("SQLITE_CANTOPEN")
        hint = " (missing rights, or too many open files: ulimit -n)" if is_shut else ""
        raise ConfigError([f"cannot open {path}: {error}{hint}"]) from error


def connect(path: Path, *, is_synced: bool) -> sqlite3.Connection:
    """Open one more connection. Transactions are begun and ended by hand."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL syncs the log at every commit; NORMAL only before its pages are copied.
        connection.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        # A log that grew during a backup gives its space back.
        connection.execute(f"PRAGMA journal_size_limit = {MAX_IDLE_LOG_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    connection = connect(path, is_synced=True)
    connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _create(path: Path) -> None:
    """Make an empty store under another name first.

    So a file under the real name is whole from its first moment on, and an
    empty one can be refused: something has emptied it.
    """
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        raise ConfigError(
            [
                f"{path} is missing but its write-ahead log {wal.name} is there: "
                "put the file back, or restore a backup"
            ]
        )
    fresh = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        # Kept in the file: connections that open it later use the log too.
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection)
    finally:
        connection.close()
    sync(fresh)
    fresh.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_files(path: Path, settings: EmbeddedSettings) -> bool:
    """Look at the files before SQLite does.

    Returns:
        Whether the store was stopped orderly.
    """
    with path.open("rb") as file:
        header = file.read(len(HEADER))
    if header != HEADER:
        what = "is empty" if not header else "does not begin as a database does"
        raise _damaged(path, f"the file {what}")
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return True
    # The last transaction before a crash may be torn: it was not answered. With durability
    # "os" a power loss may tear several, and that is what was configured.
    lost = lost_commits(wal)
    if lost > 1 and settings.durability == "fsync":
        raise _damaged(wal, f"it is broken before {lost} later commits, which may have been answered")
    if lost > 1:
        log.warning("commits after a torn one are lost: path=%s commits=%d", wal, lost)
    return False


def _check_content(path: Path, settings: EmbeddedSettings, *, is_clean: bool) -> None:
    """Look at a database through a connection that leaves it and its log as they are."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise ConfigError([f"{path} is a database of another program"])
        is_small = path.stat().st_size <= settings.check_below_bytes
        if is_clean and not is_small:
            return
        if not is_clean:
            log.info("not closed orderly, checking it: path=%s", path)
        if is_small:
            _read_ahead(path)
        # The quick one does not compare the indexes with their tables. Of 256 MB in the page cache it takes
        # 0.3 to 0.6 s, the other 0.7 s with payloads of 1,000 bytes and 6 s with payloads of 100; of 64 MB
        # 0.2 to 1.3 s. The time goes into finding each row in each index, and grows faster than the file.
        check = "integrity_check" if is_small else "quick_check"
        fault = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if fault != "ok":
            raise _damaged(path, " ".join(fault.split()))
    finally:
        connection.close()


def _read_ahead(path: Path) -> None:
    """Bring a file into the page cache: from a cold disk a check alone takes twice as long, page by page."""
    with path.open("rb", buffering=0) as file:
        while file.read(READ_AHEAD_BYTES):
            pass


def _open_writing(path: Path, settings: EmbeddedSettings) -> sqlite3.Connection:
    connection = connect(path, is_synced=settings.durability == "fsync")
    try:
        before = migrate(connection)
        after = connection.execute("PRAGMA user_version").fetchone()[0]
        if before != after:
            log.info("the schema is a newer one now: path=%s version=%d before=%d", path, after, before)
    except BaseException:
        connection.close()
        raise
    return connection


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(
        [
            f"{path} is damaged ({what}). Nothing was changed. Restore a backup made with `encke backup`, "
            f"or rescue what can be read: sqlite3 {path.with_name(FILE_NAME)} .recover | sqlite3 rescued.db"
        ]
    )
