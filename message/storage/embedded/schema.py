"""Tables of the embedded store, and how a file of an older version becomes a present one.

The file's version is SQLite's user_version; MIGRATIONS[n] turns version n into n + 1.
A released migration is never edited: files in the field have gone through it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from cluster.errors import ConfigError

# SQLite's application_id, "ENCK": tells our files from any other database.
APPLICATION_ID = 0x454E434B

Migration = Callable[[sqlite3.Connection], None]


def _create(connection: sqlite3.Connection) -> None:
    # What is known of a key, kept while it has messages, ids or a gap mark.
    connection.execute(
        """
        CREATE TABLE keys (
            id            INTEGER PRIMARY KEY,
            key           TEXT NOT NULL UNIQUE,
            last          INTEGER NOT NULL,  -- highest mid settled
            stored        INTEGER NOT NULL,  -- mid of the newest message stored, 0 = none
            messages      INTEGER NOT NULL,  -- rows in messages, expired ones that are still there included
            payload_bytes INTEGER NOT NULL,
            trimmed       INTEGER NOT NULL,  -- highest mid removed by the limit, 0 = none
            trimmed_until INTEGER NOT NULL,  -- unix second at which the last removed one would have expired
            ids_until     INTEGER NOT NULL   -- second of the store's clock at which its last id is forgotten
        ) STRICT
        """
    )
    connection.execute("CREATE INDEX keys_by_mark ON keys (trimmed_until) WHERE trimmed_until > 0")
    # A rowid table with an index, not a clustered key: payloads are appended where they
    # stay, 2.3 times faster (bench/store.py). Numbers of keys keep long keys out of the index.
    connection.execute(
        """
        CREATE TABLE messages (
            id         INTEGER PRIMARY KEY,
            key_id     INTEGER NOT NULL,
            mid        INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,     -- unix second
            payload    BLOB NOT NULL
        ) STRICT
        """
    )
    connection.execute("CREATE UNIQUE INDEX messages_by_key ON messages (key_id, mid)")
    connection.execute("CREATE INDEX messages_by_expiry ON messages (expires_at)")
    # The push id comes first: ids that begin with the time, as the web nodes make them, and
    # the keys of one push to many are then inserted side by side, not all over the file.
    connection.execute(
        """
        CREATE TABLE ids (
            push_id TEXT NOT NULL,
            key_id  INTEGER NOT NULL,
            mid     INTEGER NOT NULL,
            digest  BLOB NOT NULL,           -- BLAKE2b of the payload, 16 bytes
            until   INTEGER NOT NULL,        -- second of the store's clock
            PRIMARY KEY (push_id, key_id)
        ) STRICT, WITHOUT ROWID
        """
    )
    connection.execute("CREATE INDEX ids_by_end ON ids (until)")
    connection.execute(
        """
        CREATE TABLE acknowledged (
            key    TEXT NOT NULL,
            device TEXT NOT NULL,
            mid    INTEGER NOT NULL,
            -- Unix day: in seconds, every acknowledgement would move an index entry.
            seen_day INTEGER NOT NULL,
            PRIMARY KEY (key, device)
        ) STRICT, WITHOUT ROWID
        """
    )
    connection.execute("CREATE INDEX acknowledged_by_day ON acknowledged (seen_day)")
    # One row. floor: what new keys and the clock begin above: the highest `last` of keys that were
    # forgotten, and the clock as it was kept (changes.py).
    connection.execute("CREATE TABLE store (floor INTEGER NOT NULL) STRICT")
    connection.execute("INSERT INTO store VALUES (0)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _add_fences(connection: sqlite3.Connection) -> None:
    # Incarnations of comet nodes whose saves are refused.
    connection.execute(
        """
        CREATE TABLE fences (
            incarnation TEXT PRIMARY KEY,
            until       INTEGER NOT NULL     -- second of the store's clock
        ) STRICT, WITHOUT ROWID
        """
    )


def _add_checksums(connection: sqlite3.Connection) -> None:
    # checksum() in damage.py; NULL = the message was saved before there were any.
    connection.execute("ALTER TABLE messages ADD COLUMN crc INTEGER")


MIGRATIONS: tuple[Migration, ...] = (_create, _add_fences, _add_checksums)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the file to the present version, each step in a transaction of its own.

    Returns:
        The version before.

    Raises:
        ConfigError: the file is of a newer version.
    """
    before = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if before > len(migrations):
        raise ConfigError(
            [
                f"the store is of schema version {before}, this program knows up to {len(migrations)}: "
                "run the newer program, or restore a backup made with this one"
            ]
        )
    for version in range(before, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[version](connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return before
