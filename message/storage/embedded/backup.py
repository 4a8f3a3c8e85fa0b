"""Copies the embedded store of a running server into one file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from cluster.errors import StorageError
from message.storage.embedded.file import FILE_NAME, sync
from message.storage.embedded.schema import APPLICATION_ID


def backup(data_dir: Path, target: Path) -> int:
    """Copy the store as it is at one moment; every push answered before the call is in it.

    May run in any process, also while a server uses the store: saves go on,
    the log grows until the copy is done. The copy is checked whole, and stands
    under its name only if it is good. To restore it, stop the server and put it
    into an empty data directory as ``store.db``.

    Returns:
        Size of the copy in bytes.

    Raises:
        StorageError: there is no store, the target exists or cannot be written,
            or the store is damaged.
    """
    source = data_dir / FILE_NAME
    if not source.is_file():
        raise StorageError(f"{source}: there is no store")
    if target.exists():
        raise StorageError(f"{target} exists already: choose another name")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        _copy(source, partial)
        sync(partial)
        # Unlike a rename, a link does not replace what has appeared there meanwhile.
        os.link(partial, target)
    except FileExistsError as error:
        raise StorageError(f"{target} exists already: choose another name") from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StorageError(f"cannot copy {source} to {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    sync(target.parent)
    return target.stat().st_size


def _copy(source: Path, target: Path) -> None:
    # A backup may be read by nobody but the owner, as the store.
    target.touch(mode=0o600)
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        if reading.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StorageError(f"{source} is a database of another program")
        writing = sqlite3.connect(target, isolation_level=None)
        try:
            # In one step: a copy in several starts again whenever the server has written.
            reading.backup(writing, pages=-1)
            # The copy is one file, without a log beside it.
            writing.execute("PRAGMA journal_mode = DELETE")
            fault = writing.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if fault != "ok":
                raise StorageError(f"{source} is damaged ({fault}): the copy was not kept")
        finally:
            writing.close()
    finally:
        reading.close()
