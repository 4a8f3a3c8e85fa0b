"""Saving in the embedded store: settle mids, remember ids, insert, keep the limits; for many batches at once.

Runs in the writer's thread, inside its transaction, on state that it read in
the same transaction. It never commits; see writer.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.errors import EnckeError
from cluster.mids import MAX_SENT_LEAD, TICKS_PER_SECOND, settle
from cluster.model import Mid
from message.storage.checks import fenced, too_far, too_late
from message.storage.clock import to_whole_s
from message.storage.counters import Tally
from message.storage.embedded.clock import EmbeddedClock
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.damage import checksum
from message.storage.embedded.keys import Keys, KeyState
from message.storage.embedded.reads import is_fenced
from message.storage.embedded.rows import ManyRows
from message.storage.rules import ID_GRACE_S, payload_hash

# Asking the class for a member is a call in Python.
_SAVED = Outcome.SAVED

_LOAD_IDS = ManyRows(
    "SELECT json_group_array(json_array(i.push_id, i.key_id, i.mid, hex(i.digest), i.until))"
    " FROM (VALUES {rows}) v CROSS JOIN ids i ON i.push_id = v.column1 AND i.key_id = v.column2"
    " WHERE v.column2 >= 0",
    width=2,
)
_KNOWS_ID = (
    "SELECT 1 FROM keys k JOIN ids i ON i.key_id = k.id WHERE k.key = ? AND i.push_id = ? AND i.until > ?"
)
_ADD_MESSAGES = ManyRows(
    "INSERT OR FAIL INTO messages (key_id, mid, expires_at, payload, crc)"
    " SELECT * FROM (VALUES {rows}) WHERE column1 >= 0",
    width=5,
)
_PUT_IDS = ManyRows(
    "INSERT OR FAIL INTO ids (push_id, key_id, mid, digest, until)"
    " SELECT * FROM (VALUES {rows}) WHERE column2 >= 0"
    " ON CONFLICT (push_id, key_id)"
    " DO UPDATE SET mid = excluded.mid, digest = excluded.digest, until = excluded.until",
    width=5,
)

# A row of `ids`, but for its key: mid, digest and end. The digest as SQLite takes it.
_Known = tuple[Mid, bytearray, int]
# Push id and number of the key.
_Place = tuple[str, int]


class Saver:
    """Applies groups of saves to one connection."""

    def __init__(
        self, connection: sqlite3.Connection, settings: EmbeddedSettings, time: EmbeddedClock
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._time = time
        self._keys = Keys(connection, settings)

    def forget_keys(self) -> None:
        """The table of keys was changed by something else, or a transaction rolled back."""
        self._keys.forget()

    def save(self, batches: Sequence[SaveBatch], tally: Tally) -> list[SaveReply | EnckeError]:
        """Apply batches in their order; results in the same order.

        Raises:
            sqlite3.Error: roll the transaction back, nothing is saved.
        """
        clock = self._time.mid()
        refused = self._refused(batches, clock, tally)
        good = (
            [batch for number, batch in enumerate(batches) if number not in refused] if refused else batches
        )
        if not good:
            return list(refused.values())
        group = _Group(self, good, clock, tally)
        replies = group.settle()
        group.write()
        if not refused:
            return replies
        left = iter(replies)
        return [refused.get(number) or next(left) for number in range(len(batches))]

    def _refused(self, batches: Sequence[SaveBatch], clock: Mid, tally: Tally) -> dict[int, EnckeError]:
        """Batches that are not saved, by their numbers, and why."""
        incarnations = {batch.incarnation for batch in batches}
        fences = {one for one in incarnations if one and is_fenced(self._connection, one, to_whole_s(clock))}
        latest = clock + self._settings.max_deadline_s * TICKS_PER_SECOND
        farthest = clock + MAX_SENT_LEAD
        refused: dict[int, EnckeError] = {}
        for number, batch in enumerate(batches):
            if batch.incarnation in fences:
                refused[number] = fenced()
            elif batch.sent > farthest or not clock <= batch.deadline <= latest:
                refusal = self._refusal(batch, clock, tally)
                if refusal is not None:
                    refused[number] = refusal
        return refused

    def _refusal(self, batch: SaveBatch, clock: Mid, tally: Tally) -> EnckeError | None:
        if batch.sent > clock + MAX_SENT_LEAD:
            tally.ignored_sent += 1
        if batch.deadline < clock and not self._knows_all(batch, clock):
            tally.late += len(batch.items)
            return too_late()
        limit_s = self._settings.max_deadline_s
        if batch.deadline > clock + limit_s * TICKS_PER_SECOND:
            return too_far(limit_s)
        return None

    def _knows_all(self, batch: SaveBatch, clock: Mid) -> bool:
        """Whether a late batch is the repeat of one that was saved in time."""
        now_s = to_whole_s(clock)
        return all(
            self._connection.execute(_KNOWS_ID, (batch.key, item.push_id, now_s)).fetchone()
            for item in batch.items
        )


class _Group:
    """One group of saves on its way into the tables."""

    def __init__(self, saver: Saver, batches: Sequence[SaveBatch], clock: Mid, tally: Tally) -> None:
        self._connection = saver._connection
        self._max_id_ttl_s = saver._settings.max_id_ttl_s
        self._batches = batches
        self._clock = clock
        self._clock_s = to_whole_s(clock)
        self._now_s = saver._time.wall_s()
        # Expiry of a message that lives for 0 s.
        self._expiry_base = saver._time.expires_at(0)
        self._tally = tally
        self._keys = saver._keys
        self._states = self._keys.load([batch.key for batch in batches])
        # Ids in the table, and those of this group.
        self._ids = self._load_ids()
        # Of these, what the table does not know yet.
        self._new_ids: dict[_Place, _Known] = {}
        # Parameters of the statement, row after row.
        self._new_messages: list[Any] = []

    def settle(self) -> list[SaveReply | EnckeError]:
        """Decide about every item; changes only what is in memory."""
        replies: list[SaveReply | EnckeError] = []
        for batch in self._batches:
            state = self._states[batch.key]
            until = batch.deadline // TICKS_PER_SECOND + 1 + ID_GRACE_S
            results = [self._settle_item(state, item, batch.sent, until) for item in batch.items]
            replies.append(SaveReply(results, self._clock))
        return replies

    def write(self) -> None:
        """Put the decisions into the tables."""
        _ADD_MESSAGES.execute(self._connection, self._new_messages)
        rows: list[Any] = []
        for place, known in self._new_ids.items():
            rows += place
            rows += known
        _PUT_IDS.execute(self._connection, rows)
        self._tally.trimmed += self._keys.write(self._states.values(), self._now_s)

    def _load_ids(self) -> dict[_Place, _Known]:
        places: list[Any] = []
        for batch in self._batches:
            state = self._states[batch.key]
            # Otherwise all its ids have lapsed, or there are none.
            if state.ids_until > self._clock_s:
                for item in batch.items:
                    if item.push_id:
                        places += (item.push_id, state.id)
        return {
            (push_id, key_id): (mid, bytearray.fromhex(digest), until)
            for push_id, key_id, mid, digest, until in _LOAD_IDS.select(self._connection, places)
        }

    def _settle_item(self, state: KeyState, item: SaveItem, sent: Mid, until: int) -> SaveResult:
        if not item.push_id:
            return self._add(state, item, sent)
        digest = bytearray(payload_hash(item.payload).digest())
        if item.id_ttl_s:
            until = max(until, self._clock_s + min(item.id_ttl_s, self._max_id_ttl_s))
        place = (item.push_id, state.id)
        known = self._ids.get(place)
        if known is not None and known[2] > self._clock_s:
            return self._repeat(state, place, known, digest, until)
        result = self._add(state, item, sent)
        if until > state.ids_until:
            state.ids_until = until
        self._ids[place] = self._new_ids[place] = (result.mid, digest, until)
        return result

    def _add(self, state: KeyState, item: SaveItem, sent: Mid) -> SaveResult:
        """Store what is not known yet."""
        payload = item.payload
        mid = settle(self._clock, state.last, sent)
        state.last = mid
        self._tally.saved += 1
        prev = state.stored
        if item.expire_s > 0:
            self._new_messages += (
                state.id,
                mid,
                self._expiry_base + item.expire_s,
                bytearray(payload),
                checksum(state.id, mid, payload),
            )
            state.stored = mid
            state.messages += 1
            state.payload_bytes += len(payload)
        return SaveResult(_SAVED, mid, prev)

    def _repeat(
        self, state: KeyState, place: _Place, known: _Known, digest: bytearray, until: int
    ) -> SaveResult:
        mid, first_digest, first_until = known
        if first_digest != digest:
            self._tally.conflicts += 1
            return SaveResult(Outcome.CONFLICT, Mid(0), Mid(0))
        self._tally.repeated += 1
        if until > first_until:
            # The repeat may be repeated in its turn, until its own deadline.
            self._ids[place] = self._new_ids[place] = (mid, digest, until)
            state.ids_until = max(state.ids_until, until)
        return SaveResult(Outcome.REPEATED, mid, Mid(0))
