"""What the embedded store knows of each key: load it for a group of saves, keep its limits, write it back.

Runs in the writer's thread, inside its transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cluster.model import Key
from message.config import EmbeddedSettings
from message.storage.embedded_rows import ManyRows

# A full key is trimmed when it is over a limit by this share of it, not at every save, which
# would cost 9 us each (bench/store.py --saves 200000).
TRIM_SLACK = 32

# The first column is the caller's number of the row.
_LOAD_KEYS = ManyRows(
    "SELECT json_group_array(json_array(v.column1, k.id, k.last, k.stored, k.messages, k.payload_bytes,"
    " k.trimmed, k.trimmed_until, k.ids_until))"
    " FROM (VALUES {rows}) v CROSS JOIN keys k ON k.key = v.column2 WHERE v.column1 >= 0",
    width=2,
)
_ADD_KEYS = ManyRows(
    "INSERT OR FAIL INTO keys"
    " (id, key, last, stored, messages, payload_bytes, trimmed, trimmed_until, ids_until)"
    " SELECT * FROM (VALUES {rows}) WHERE column1 >= 0",
    width=9,
)
_SET_KEYS = ManyRows(
    "UPDATE OR FAIL keys SET last = v.column2, stored = v.column3, messages = v.column4,"
    " payload_bytes = v.column5, trimmed = v.column6, trimmed_until = v.column7, ids_until = v.column8"
    " FROM (VALUES {rows}) v WHERE keys.id = v.column1 AND v.column1 >= 0",
    width=8,
)
_OLDEST = (
    "SELECT json_group_array(json_array(mid, expires_at, size)) FROM"
    " (SELECT mid, expires_at, length(payload) AS size FROM messages WHERE key_id = ? ORDER BY mid LIMIT ?)"
)
_TRIM = "DELETE FROM messages WHERE key_id = ? AND mid <= ?"


class KeyState:
    """A row of `keys` while a group of saves changes it."""

    __slots__ = (
        "id", "ids_until", "is_new", "last", "messages", "payload_bytes", "stored", "trimmed",
        "trimmed_until",
    )  # fmt: skip

    def __init__(self, row: Sequence[int], *, is_new: bool) -> None:
        (
            self.id, self.last, self.stored, self.messages, self.payload_bytes,
            self.trimmed, self.trimmed_until, self.ids_until,
        ) = row  # fmt: skip
        self.is_new = is_new

    def row(self) -> tuple[int, ...]:
        """The columns but the key, in the order of the table."""
        return (
            self.id, self.last, self.stored, self.messages, self.payload_bytes,
            self.trimmed, self.trimmed_until, self.ids_until,
        )  # fmt: skip


class Keys:
    """The table `keys` behind one connection."""

    def __init__(self, connection: sqlite3.Connection, settings: EmbeddedSettings) -> None:
        self._connection = connection
        self._max_messages = settings.max_messages_per_key
        self._max_bytes = settings.max_bytes_per_key
        highest = connection.execute("SELECT max(id) FROM keys").fetchone()[0]
        # Numbers of keys are not used twice while the store is open.
        self._next_id: int = (highest or 0) + 1

    def load(self, keys: Iterable[Key]) -> dict[Key, KeyState]:
        """Read what is known of keys; one that is unknown gets a new state, above the floor."""
        names = list(dict.fromkeys(keys))
        numbered = [value for row in enumerate(names) for value in row]
        states: dict[Key, KeyState] = {
            names[number]: KeyState(row, is_new=False)
            for number, *row in _LOAD_KEYS.select(self._connection, numbered)
        }
        if len(states) == len(names):
            return states
        # A key that the store does not know starts above everything it has forgotten.
        floor = int(self._connection.execute("SELECT floor FROM store").fetchone()[0])
        for key in names:
            if key not in states:
                states[key] = KeyState((self._next_id, floor, 0, 0, 0, 0, 0, 0), is_new=True)
                self._next_id += 1
        return states

    def write(self, states: dict[Key, KeyState], now_s: int) -> int:
        """Bring keys within their limits and write their states back.

        Args:
            now_s: unix second; messages that have expired by then are trimmed without a mark.

        Returns:
            How many unexpired messages were trimmed.
        """
        max_messages = self._max_messages + self._max_messages // TRIM_SLACK
        max_bytes = self._max_bytes + self._max_bytes // TRIM_SLACK
        trimmed = 0
        added: list[Any] = []
        changed: list[Any] = []
        for key, state in states.items():
            if state.messages > max_messages or state.payload_bytes > max_bytes:
                trimmed += self._trim(state, now_s)
            if state.is_new:
                key_id, *rest = state.row()
                added += (key_id, key, *rest)
            else:
                changed += state.row()
        if added:
            _ADD_KEYS.execute(self._connection, added)
        if changed:
            _SET_KEYS.execute(self._connection, changed)
        return trimmed

    def _trim(self, state: KeyState, now_s: int) -> int:
        """Remove the oldest messages of a key until it is within its limits; the newest stays."""
        trimmed = last_removed = 0
        excess = state.messages
        if state.payload_bytes <= self._max_bytes:
            excess -= self._max_messages
        (oldest,) = self._connection.execute(_OLDEST, (state.id, excess)).fetchone()
        for mid, expires_at, payload_bytes in msgspec.json.decode(oldest):
            is_within = state.messages <= self._max_messages and state.payload_bytes <= self._max_bytes
            if is_within or mid == state.stored:
                break
            state.messages -= 1
            state.payload_bytes -= payload_bytes
            last_removed = mid
            if expires_at > now_s:
                trimmed += 1
                state.trimmed = mid
                state.trimmed_until = max(state.trimmed_until, expires_at)
        if last_removed:
            self._connection.execute(_TRIM, (state.id, last_removed))
        return trimmed
