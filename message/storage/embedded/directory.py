"""The embedded store's directory: made, locked, or only tried. What is in it is the business of file.py.

It knows nothing of SQLite: the process that tries the directory for another one needs none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.errors import ConfigError

LOCK_NAME = "lock"
# Chooses the directory.
SETTING = "message.data_dir"


def make_locked(directory: Path) -> int:
    """Make a directory if it is missing, and lock it.

    Returns:
        The descriptor that holds the lock: of a file for the number of the process. The caller closes it.

    Raises:
        ConfigError: it is in use, or cannot be made or written.
    """
    with _told(directory, SETTING):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _lock(directory, SETTING)


def try_directory(directory: Path, chosen_with: str = SETTING) -> None:
    """Find out whether make_locked() could succeed, and make no directory.

    Args:
        chosen_with: what chooses another one, for whoever must.

    Raises:
        ConfigError: as of make_locked().
    """
    with _told(directory, chosen_with):
        there = _nearest(directory)
        # What would be made there first. A lock file from an earlier time says nothing of rights and room.
        trial = there / f".encke-{os.getpid()}"
        trial.touch(mode=0o600)
        trial.unlink(missing_ok=True)
    if there == directory:
        os.close(_lock(directory, chosen_with))


def _lock(directory: Path, chosen_with: str) -> int:
    with _told(directory, chosen_with):
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigError(
            [
                f"{directory} is in use by another process (pid {holder}): "
                f"stop it, or choose another with {chosen_with}"
            ]
        ) from error
    return descriptor


@contextmanager
def _told(directory: Path, chosen_with: str) -> Iterator[None]:
    """Turn what the system has against a directory into a ConfigError."""
    try:
        yield
    except (OSError, ValueError) as error:
        # ValueError: the locale's encoding has no such characters, or there is a NUL among them.
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            [f"cannot use {directory} as data directory: {why}; choose another with {chosen_with}"]
        ) from error


def _nearest(directory: Path) -> Path:
    """The directory itself, or the lowest of those above it that is there."""
    for path in (directory, *directory.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            # Not through a link: one that leads nowhere is in the way, too.
            path.lstat()
            return path
    return directory
