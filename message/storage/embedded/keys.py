"""What the embedded store knows of each key: load it for a group of saves, keep its limits, write it back.

Runs in the writer's thread, inside its transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from cluster.model import Key, Mid
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.rows import ManyRows
from message.storage.trimming import most_trimmed, trim, with_slack

# Keys that are remembered from one group to the next: about 300 bytes each.
MAX_KEPT = 8192

_LOAD_KEYS = ManyRows(
    "SELECT json_group_array(json_array(k.id, k.key, k.last, k.stored, k.messages, k.payload_bytes,"
    " k.trimmed, k.trimmed_until, k.ids_until))"
    # A filler is a number, and no text; compared with the column `key` it would be "-1".
    " FROM (VALUES {rows}) v CROSS JOIN keys k ON k.key = v.column1 WHERE typeof(v.column1) = 'text'",
    width=1,
)
# Half the CPU of UPDATE ... FROM, which goes through a table of its own.
_PUT_KEYS = ManyRows(
    "INSERT OR FAIL INTO keys"
    " (id, key, last, stored, messages, payload_bytes, trimmed, trimmed_until, ids_until)"
    " SELECT * FROM (VALUES {rows}) WHERE column1 >= 0"
    " ON CONFLICT (id) DO UPDATE SET last = excluded.last, stored = excluded.stored,"
    " messages = excluded.messages, payload_bytes = excluded.payload_bytes, trimmed = excluded.trimmed,"
    " trimmed_until = excluded.trimmed_until, ids_until = excluded.ids_until",
    width=9,
)
_OLDEST = (
    "SELECT json_group_array(json_array(mid, expires_at, size)) FROM"
    " (SELECT mid, expires_at, length(payload) AS size FROM messages WHERE key_id = ? ORDER BY mid LIMIT ?)"
)
_TRIM = "DELETE FROM messages WHERE key_id = ? AND mid <= ?"


class KeyState(msgspec.Struct, array_like=True, gc=False):
    """A row of `keys`, its columns in the order of the table, while a group of saves changes it."""

    id: int
    key: Key
    last: Mid
    stored: Mid
    messages: int
    payload_bytes: int
    trimmed: Mid
    trimmed_until: int
    ids_until: int


_ROWS = msgspec.json.Decoder(list[KeyState])


class Keys:
    """The table `keys` behind one connection."""

    def __init__(self, connection: sqlite3.Connection, settings: EmbeddedSettings) -> None:
        self._connection = connection
        self._settings = settings
        highest = connection.execute("SELECT max(id) FROM keys").fetchone()[0]
        # Numbers of keys are not used twice while the store is open.
        self._next_id: int = (highest or 0) + 1
        # As in the table, with what the present transaction has changed. Reading a key costs a sixth of
        # the instructions of a save (callgrind), and busy keys are saved again and again.
        self._kept: dict[Key, KeyState] = {}

    def forget(self) -> None:
        """The table was changed by something else, or is as it was before the transaction."""
        self._kept.clear()

    def load(self, keys: Iterable[Key]) -> dict[Key, KeyState]:
        """What is known of keys; one that is unknown gets a new state, above the floor."""
        kept = self._kept
        states: dict[Key, KeyState] = {}
        unread: dict[Key, None] = {}
        for key in keys:
            state = kept.get(key)
            if state is None:
                unread[key] = None
            else:
                states[key] = state
        if unread:
            read = self._read(list(unread))
            states |= read
            if len(kept) + len(read) > MAX_KEPT:
                # Their states are written back with each group, so nothing is lost.
                kept.clear()
            kept |= read
        return states

    def _read(self, names: list[Key]) -> dict[Key, KeyState]:
        states: dict[Key, KeyState] = {}
        for (rows,) in _LOAD_KEYS.rows(self._connection, names):
            for state in _ROWS.decode(rows):
                states[state.key] = state
        if len(states) == len(names):
            return states
        # A key that the store does not know starts above everything it has forgotten.
        floor = Mid(self._connection.execute("SELECT floor FROM store").fetchone()[0])
        for key in names:
            if key not in states:
                states[key] = KeyState(self._next_id, key, floor, Mid(0), 0, 0, Mid(0), 0, 0)
                self._next_id += 1
        return states

    def write(self, states: Iterable[KeyState], now_s: int) -> int:
        """Bring keys within their limits and write their states back.

        Args:
            now_s: unix second; messages that have expired by then are trimmed without a mark.

        Returns:
            How many unexpired messages were trimmed.
        """
        most_messages = with_slack(self._settings.max_messages_per_key)
        most_bytes = with_slack(self._settings.max_bytes_per_key)
        trimmed = 0
        rows: list[Any] = []
        for state in states:
            if not state.ids_until and not state.messages:
                # A new key of which nothing was saved: nothing would ever remove its row.
                continue
            if state.messages > most_messages or state.payload_bytes > most_bytes:
                trimmed += self._trim(state, now_s)
            rows += msgspec.structs.astuple(state)
        _PUT_KEYS.execute(self._connection, rows)
        return trimmed

    def _trim(self, state: KeyState, now_s: int) -> int:
        most = most_trimmed(state, self._settings)
        (oldest,) = self._connection.execute(_OLDEST, (state.id, most)).fetchone()
        removed_to, unexpired = trim(state, msgspec.json.decode(oldest), self._settings, now_s)
        if removed_to:
            self._connection.execute(_TRIM, (state.id, removed_to))
        return unexpired
