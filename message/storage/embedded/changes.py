"""Everything that changes the embedded store, apart from saving: acknowledge, delete, expire, forget.

Functions on the writer's connection, inside its transaction; see writer.py.
"""

from __future__ import annotations

import sqlite3

from cluster.model import Key, Mid
from message.storage.rules import FENCE_S, SECONDS_PER_DAY, last_silent_day

# Expired messages and lapsed ids in the order in which batches take them; both statements
# of a batch must see the same rows.
_EXPIRED = "SELECT id FROM messages WHERE expires_at <= ?1 ORDER BY expires_at, id LIMIT ?2"
_LAPSED = "SELECT push_id, key_id FROM ids WHERE until <= ?1 ORDER BY until, push_id, key_id LIMIT ?2"
_OLD_MARKS = (
    "SELECT id FROM keys WHERE trimmed_until > 0 AND trimmed_until <= ?1 ORDER BY trimmed_until LIMIT ?2"
)
_SILENT = "SELECT key, device FROM acknowledged WHERE seen_day <= ?1 ORDER BY seen_day LIMIT ?2"

_FORGETTABLE = (
    "id IN (SELECT key_id FROM temp.touched) AND messages = 0 AND trimmed_until = 0 AND ids_until <= ?1"
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make what these functions need on a new connection."""
    # Keys that the present transaction took something from.
    connection.execute("CREATE TEMP TABLE touched (key_id INTEGER PRIMARY KEY)")


def acknowledge(
    connection: sqlite3.Connection, key: Key, device: str, mid: Mid, now_s: int, max_devices: int
) -> None:
    """Move a device's acknowledged mid forward."""
    today = now_s // SECONDS_PER_DAY
    known = connection.execute(
        "UPDATE acknowledged SET mid = max(mid, ?3), seen_day = ?4 WHERE key = ?1 AND device = ?2",
        (key, device, mid, today),
    )
    if known.rowcount:
        return
    connection.execute(
        "DELETE FROM acknowledged WHERE key = ?1 AND device IN"
        " (SELECT device FROM acknowledged WHERE key = ?1"
        "  ORDER BY seen_day DESC, mid DESC LIMIT -1 OFFSET ?2)",
        (key, max_devices - 1),
    )
    connection.execute("INSERT INTO acknowledged VALUES (?, ?, ?, ?)", (key, device, mid, today))


def delete_key(connection: sqlite3.Connection, key: Key, now_s: int, clock_s: int) -> int:
    """Delete messages, gap mark and acknowledged mids of a key; how many unexpired messages there were."""
    connection.execute("DELETE FROM acknowledged WHERE key = ?", (key,))
    row = connection.execute("SELECT id FROM keys WHERE key = ?", (key,)).fetchone()
    if row is None:
        return 0
    deleted = connection.execute(
        "SELECT count(*) FROM messages WHERE key_id = ? AND expires_at > ?", (row[0], now_s)
    ).fetchone()[0]
    connection.execute("DELETE FROM messages WHERE key_id = ?", row)
    connection.execute(
        "UPDATE keys SET stored = 0, messages = 0, payload_bytes = 0, trimmed = 0, trimmed_until = 0"
        " WHERE id = ?",
        row,
    )
    connection.execute("INSERT INTO temp.touched VALUES (?)", row)
    _forget(connection, clock_s)
    return int(deleted)


def delete_message(connection: sqlite3.Connection, key: Key, mid: Mid, now_s: int, clock_s: int) -> bool:
    """Delete one message; whether it was there, unexpired."""
    row = connection.execute(
        "SELECT m.id, m.key_id, m.expires_at, length(m.payload)"
        " FROM keys k JOIN messages m ON m.key_id = k.id WHERE k.key = ? AND m.mid = ?",
        (key, mid),
    ).fetchone()
    if row is None:
        return False
    message_id, key_id, expires_at, payload_bytes = row
    connection.execute("DELETE FROM messages WHERE id = ?", (message_id,))
    connection.execute(
        "UPDATE keys SET messages = messages - 1, payload_bytes = payload_bytes - ? WHERE id = ?",
        (payload_bytes, key_id),
    )
    connection.execute("INSERT INTO temp.touched VALUES (?)", (key_id,))
    _forget(connection, clock_s)
    return bool(expires_at > now_s)


def fence(connection: sqlite3.Connection, incarnation: str, clock_s: int) -> None:
    """Remember an incarnation whose saves are refused, and forget those that are long gone."""
    connection.execute("DELETE FROM fences WHERE until <= ?", (clock_s,))
    connection.execute("INSERT OR REPLACE INTO fences VALUES (?, ?)", (incarnation, clock_s + FENCE_S))


def remove_expired(
    connection: sqlite3.Connection, now_s: int, clock_s: int, device_memory_days: int, limit: int
) -> tuple[int, int]:
    """Remove up to `limit` expired rows of each kind, and forget the keys of which nothing is left.

    Whole sets are removed by single statements: a call per row would give up
    the interpreter lock per row (see rows.py).

    Returns:
        Messages removed, and rows of all kinds removed.
    """
    due, lapsed = (now_s, limit), (clock_s, limit)
    connection.execute(
        "INSERT OR IGNORE INTO temp.touched"
        f" SELECT key_id FROM messages WHERE id IN ({_EXPIRED}) UNION SELECT id FROM ({_OLD_MARKS})",
        due,
    )
    connection.execute(f"INSERT OR IGNORE INTO temp.touched SELECT key_id FROM ({_LAPSED})", lapsed)
    connection.execute(
        "UPDATE OR FAIL keys SET messages = messages - d.rows, payload_bytes = payload_bytes - d.bytes"
        " FROM (SELECT key_id, count(*) AS rows, sum(length(payload)) AS bytes"
        f"  FROM messages WHERE id IN ({_EXPIRED}) GROUP BY key_id) d WHERE keys.id = d.key_id",
        due,
    )
    messages = connection.execute(f"DELETE FROM messages WHERE id IN ({_EXPIRED})", due).rowcount
    ids = connection.execute(f"DELETE FROM ids WHERE (push_id, key_id) IN ({_LAPSED})", lapsed).rowcount
    marks = connection.execute(
        f"UPDATE OR FAIL keys SET trimmed = 0, trimmed_until = 0 WHERE id IN ({_OLD_MARKS})", due
    ).rowcount
    devices = connection.execute(
        f"DELETE FROM acknowledged WHERE (key, device) IN ({_SILENT})",
        (last_silent_day(now_s, device_memory_days), limit),
    ).rowcount
    _forget(connection, clock_s)
    return messages, max(messages, ids, marks, devices)


def keep_clock(connection: sqlite3.Connection, clock: Mid) -> None:
    """Let the store's clock begin above this at its next start, whatever the wall clock says then."""
    connection.execute("UPDATE store SET floor = max(floor, ?)", (clock,))


def _forget(connection: sqlite3.Connection, clock_s: int) -> None:
    """Drop touched keys of which nothing is left; fold their last mids into the floor."""
    connection.execute(
        f"UPDATE store SET floor = max(floor, ifnull((SELECT max(last) FROM keys WHERE {_FORGETTABLE}), 0))",
        (clock_s,),
    )
    connection.execute(f"DELETE FROM keys WHERE {_FORGETTABLE}", (clock_s,))
    connection.execute("DELETE FROM temp.touched")
