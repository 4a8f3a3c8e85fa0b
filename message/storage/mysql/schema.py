"""Tables of the MySQL store, and how an older database, gopush-cluster's too, becomes a present one.

The version stands in encke_schema. MIGRATIONS[n] turns version n into n + 1;
each step may be repeated, because MySQL cannot roll back changes of tables.
A released migration is never edited: databases in the field have gone through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.errors import ConfigError, StorageError
from message.storage.mysql.connection import Connection

Migration = Callable[[Connection], None]

_TAIL = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"

# Keys are compared byte by byte: VARBINARY. `private_msg` is the table of gopush-cluster, with wider columns.
TABLES = (
    f"""CREATE TABLE IF NOT EXISTS private_msg (
    id    BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    skey  VARBINARY(512) NOT NULL,
    mid   BIGINT UNSIGNED NOT NULL,
    ttl   BIGINT NOT NULL COMMENT 'unix second at which it expires',
    msg   LONGBLOB NOT NULL COMMENT 'JSON',
    ctime DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    mtime DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    PRIMARY KEY (id),
    UNIQUE KEY ux_private_msg_1 (skey, mid),
    KEY ix_private_msg_1 (ttl)
) {_TAIL}""",
    f"""CREATE TABLE IF NOT EXISTS encke_keys (
    skey          VARBINARY(512) NOT NULL,
    last          BIGINT UNSIGNED NOT NULL COMMENT 'highest mid settled',
    stored        BIGINT UNSIGNED NOT NULL COMMENT 'mid of the newest message stored, 0 = none',
    messages      BIGINT NOT NULL COMMENT 'rows in private_msg, expired ones that are still there included',
    payload_bytes BIGINT NOT NULL,
    trimmed       BIGINT UNSIGNED NOT NULL COMMENT 'highest mid removed by the limit, 0 = none',
    trimmed_until BIGINT NOT NULL COMMENT 'unix second at which the last removed one would have expired',
    ids_until     BIGINT NOT NULL COMMENT 'second of the store clock at which its last id is forgotten',
    PRIMARY KEY (skey),
    KEY encke_keys_by_mark (trimmed_until)
) {_TAIL}""",
    f"""CREATE TABLE IF NOT EXISTS encke_ids (
    push_id VARBINARY(128) NOT NULL,
    skey    VARBINARY(512) NOT NULL,
    mid     BIGINT UNSIGNED NOT NULL,
    digest  BINARY(16) NOT NULL COMMENT 'BLAKE2b of the payload',
    until_s BIGINT NOT NULL COMMENT 'second of the store clock',
    PRIMARY KEY (push_id, skey),
    KEY encke_ids_by_end (until_s)
) {_TAIL}""",
    f"""CREATE TABLE IF NOT EXISTS encke_devices (
    skey     VARBINARY(512) NOT NULL,
    device   VARBINARY(64) NOT NULL,
    mid      BIGINT UNSIGNED NOT NULL COMMENT 'acknowledged',
    seen_day BIGINT NOT NULL COMMENT 'unix day',
    PRIMARY KEY (skey, device),
    KEY encke_devices_by_day (seen_day)
) {_TAIL}""",
    f"""CREATE TABLE IF NOT EXISTS encke_incarnations (
    name      VARBINARY(64) NOT NULL COMMENT 'registration of a comet node',
    is_fenced TINYINT NOT NULL,
    until_s   BIGINT NOT NULL COMMENT 'second of the store clock at which it is forgotten',
    PRIMARY KEY (name)
) {_TAIL}""",
    f"""CREATE TABLE IF NOT EXISTS encke_store (
    id    TINYINT NOT NULL,
    clock BIGINT UNSIGNED NOT NULL COMMENT 'the store clock was at least this',
    floor BIGINT UNSIGNED NOT NULL COMMENT 'highest mid of keys that were forgotten',
    PRIMARY KEY (id)
) {_TAIL}""",
    "INSERT IGNORE INTO encke_store (id, clock, floor) VALUES (1, 0, 0)",
    f"""CREATE TABLE IF NOT EXISTS encke_schema (
    id      TINYINT NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (id)
) {_TAIL}""",
)

# The table of gopush-cluster as it is met. Its keys were short texts, compared without regard to case.
_WIDEN = """ALTER TABLE private_msg
    MODIFY id    BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    MODIFY skey  VARBINARY(512) NOT NULL,
    MODIFY mid   BIGINT UNSIGNED NOT NULL,
    MODIFY ttl   BIGINT NOT NULL COMMENT 'unix second at which it expires',
    MODIFY msg   LONGBLOB NOT NULL COMMENT 'JSON',
    MODIFY ctime DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    MODIFY mtime DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    ENGINE=InnoDB"""


def _create(connection: Connection) -> None:
    is_older = bool(connection.select("SHOW TABLES LIKE 'private_msg'"))
    for statement in TABLES:
        connection.execute(statement)
    if is_older:
        # Its times may be zero, which strict mode refuses to carry over.
        connection.execute("SET SESSION sql_mode = ''")
        connection.execute(_WIDEN)
        _add_missing_indexes(connection)


def _add_missing_indexes(connection: Connection) -> None:
    indexed = {
        (bytes_or_text(row[0]), int(row[1])): bytes_or_text(row[2])
        for row in connection.select(
            "SELECT INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME FROM information_schema.STATISTICS"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'private_msg'"
        )
    }
    leading = {column for (_, place), column in indexed.items() if place == 1}
    if "skey" not in leading:
        connection.execute("ALTER TABLE private_msg ADD UNIQUE KEY ux_private_msg_1 (skey, mid)")
    if "ttl" not in leading:
        connection.execute("ALTER TABLE private_msg ADD KEY ix_private_msg_1 (ttl)")


MIGRATIONS: tuple[Migration, ...] = (_create,)


def schema_version(connection: Connection) -> int:
    """The version of the connection's database; 0 = it holds none of our tables."""
    if not connection.select("SHOW TABLES LIKE 'encke_schema'"):
        return 0
    rows = connection.select("SELECT version FROM encke_schema WHERE id = 1")
    return int(rows[0][0]) if rows else 0


def init_schema(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring a database to the present version; what is stored stays. One at a time: others wait.

    Returns:
        The version before.

    Raises:
        ConfigError: the database is of a newer version.
        StorageError: somebody else is at it.
        DRIVER_ERRORS: a statement failed; begin again after its cause is mended.
    """
    if connection.select("SELECT GET_LOCK(CONCAT('encke_schema.', DATABASE()), 30)")[0][0] != 1:
        raise StorageError("somebody else is changing the schema: try again")
    try:
        before = schema_version(connection)
        check_version(before, len(migrations), is_older_good=True)
        for version in range(before, len(migrations)):
            migrations[version](connection)
            connection.execute(f"REPLACE INTO encke_schema (id, version) VALUES (1, {version + 1})")
    finally:
        connection.execute("DO RELEASE_LOCK(CONCAT('encke_schema.', DATABASE()))")
    return before


def check_version(version: int, known: int = len(MIGRATIONS), *, is_older_good: bool = False) -> None:
    """See whether this program can work with a database.

    Raises:
        ConfigError: it cannot; the text says what to do.
    """
    if version > known:
        raise ConfigError(
            [
                f"the database is of schema version {version}, this program knows up to {known}: "
                "run the newer program"
            ]
        )
    if version < known and not is_older_good:
        what = (
            "has no tables of Encke"
            if version == 0
            else f"is of schema version {version}, this needs {known}"
        )
        raise ConfigError([f"the database {what}: run `encke message --config FILE --init-schema` once"])


def schema_sql() -> str:
    """All statements for an empty database, as docker/mysql.sql shows them."""
    head = (
        "-- The tables of the MySQL store. `encke message --init-schema` makes them, and brings older\n"
        "-- ones up to date; this file is for those who would rather do it by hand, in an empty database.\n"
    )
    done = f"REPLACE INTO encke_schema (id, version) VALUES (1, {len(MIGRATIONS)})"
    return head + "".join(f"\n{statement};\n" for statement in (*TABLES, done))


def bytes_or_text(value: bytes | str) -> str:
    """Names in information_schema: some servers answer them as bytes."""
    return value.decode() if isinstance(value, bytes) else value
