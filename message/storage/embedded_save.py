"""Saving in the embedded store: settle mids, remember ids, insert, keep the limits; for many batches at once.

Runs in the writer's thread, inside its transaction, on state that it read in
the same transaction. It never commits; see embedded_writer.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.errors import DeadlinePassedError, EnckeError, NotOwnerError, RequestError
from cluster.mids import MAX_SENT_LEAD, TICKS_PER_SECOND, settle
from cluster.model import Mid
from message.config import EmbeddedSettings
from message.storage.base import ID_GRACE_S
from message.storage.clock import StoreTime, to_whole_s
from message.storage.counters import Tally
from message.storage.embedded_keys import Keys, KeyState
from message.storage.embedded_reads import is_fenced
from message.storage.embedded_rows import ManyRows

# Of a payload, to tell a repeat from another payload under the same id.
DIGEST_BYTES = 16

# The first column is the caller's number of the row.
_LOAD_IDS = ManyRows(
    "SELECT json_group_array(json_array(v.column1, i.mid, hex(i.digest), i.until))"
    " FROM (VALUES {rows}) v CROSS JOIN ids i ON i.push_id = v.column2 AND i.key_id = v.column3"
    " WHERE v.column1 >= 0",
    width=3,
)
_KNOWS_ID = (
    "SELECT 1 FROM keys k JOIN ids i ON i.key_id = k.id WHERE k.key = ? AND i.push_id = ? AND i.until > ?"
)
_ADD_MESSAGES = ManyRows(
    "INSERT OR FAIL INTO messages (key_id, mid, expires_at, payload)"
    " SELECT * FROM (VALUES {rows}) WHERE column1 >= 0",
    width=4,
)
_ADD_IDS = ManyRows(
    "INSERT OR FAIL INTO ids (push_id, key_id, mid, digest, until)"
    " SELECT * FROM (VALUES {rows}) WHERE column2 >= 0",
    width=5,
)
_SET_ID = "UPDATE OR FAIL ids SET mid = ?, digest = ?, until = ? WHERE push_id = ? AND key_id = ?"


class _KnownId:
    """A row of `ids`."""

    __slots__ = ("digest", "is_in_table", "mid", "until")

    def __init__(self, mid: Mid, digest: bytes, until: int, *, is_in_table: bool) -> None:
        self.mid = mid
        self.digest = digest
        self.until = until
        # Inserted by an earlier group; otherwise by this one.
        self.is_in_table = is_in_table


class Saver:
    """Applies groups of saves to one connection."""

    def __init__(self, connection: sqlite3.Connection, settings: EmbeddedSettings, time: StoreTime) -> None:
        self._connection = connection
        self._settings = settings
        self._time = time
        self._keys = Keys(connection, settings)

    def save(self, batches: Sequence[SaveBatch], tally: Tally) -> list[SaveReply | EnckeError]:
        """Apply batches in their order; results in the same order.

        Raises:
            sqlite3.Error: roll the transaction back, nothing is saved.
        """
        clock = self._time.mid()
        incarnations = {batch.incarnation for batch in batches if batch.incarnation}
        fenced = {one for one in incarnations if is_fenced(self._connection, one, to_whole_s(clock))}
        refusals = [
            NotOwnerError("the node that saves has lost its keys")
            if batch.incarnation in fenced
            else self._refusal(batch, clock, tally)
            for batch in batches
        ]
        good = [b for b, refusal in zip(batches, refusals, strict=True) if refusal is None]
        if not good:
            return [refusal for refusal in refusals if refusal is not None]
        group = _Group(self, good, clock, tally)
        replies = iter(group.settle())
        group.write()
        return [next(replies) if refusal is None else refusal for refusal in refusals]

    def _refusal(self, batch: SaveBatch, clock: Mid, tally: Tally) -> EnckeError | None:
        if batch.sent > clock + MAX_SENT_LEAD:
            tally.ignored_sent += 1
        if batch.deadline < clock and not self._knows_all(batch, clock):
            tally.late += len(batch.items)
            return DeadlinePassedError("the deadline of the save has passed")
        limit_s = self._settings.max_deadline_s
        if batch.deadline > clock + limit_s * TICKS_PER_SECOND:
            return RequestError(
                f"the deadline of the save is more than {limit_s} s ahead of the store's clock"
            )
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
        self._settings = saver._settings
        self._batches = batches
        self._clock = clock
        self._clock_s = to_whole_s(clock)
        self._now_s = saver._time.wall_s()
        # Expiry of a message that lives for 0 s.
        self._expiry_base = saver._time.expires_at(0)
        self._tally = tally
        self._keys = saver._keys
        self._states = self._keys.load(batch.key for batch in batches)
        self._ids = self._load_ids()
        # Parameters of the statements to come, row after row.
        self._new_messages: list[Any] = []
        self._new_ids: list[tuple[str, int]] = []
        self._changed_ids: dict[tuple[str, int], _KnownId] = {}

    def settle(self) -> list[SaveReply]:
        """Decide about every item; changes only what is in memory."""
        return [
            SaveReply([self._settle_item(batch, state, item) for item in batch.items], self._clock)
            for batch in self._batches
            for state in (self._states[batch.key],)
        ]

    def write(self) -> None:
        """Put the decisions into the tables."""
        connection, ids = self._connection, self._ids
        if self._new_messages:
            _ADD_MESSAGES.execute(connection, self._new_messages)
        if self._new_ids:
            rows: list[Any] = []
            for place in self._new_ids:
                known = ids[place]
                rows += (*place, known.mid, bytearray(known.digest), known.until)
            _ADD_IDS.execute(connection, rows)
        for place, known in self._changed_ids.items():
            connection.execute(_SET_ID, (known.mid, known.digest, known.until, *place))
        self._tally.trimmed += self._keys.write(self._states, self._now_s)

    def _load_ids(self) -> dict[tuple[str, int], _KnownId]:
        places = [
            (item.push_id, state.id)
            for batch in self._batches
            for state in (self._states[batch.key],)
            if not state.is_new
            for item in batch.items
        ]
        if not places:
            return {}
        numbered = [value for number, place in enumerate(places) for value in (number, *place)]
        return {
            places[number]: _KnownId(mid, bytes.fromhex(digest), until, is_in_table=True)
            for number, mid, digest, until in _LOAD_IDS.select(self._connection, numbered)
        }

    def _settle_item(self, batch: SaveBatch, state: KeyState, item: SaveItem) -> SaveResult:
        digest = blake2b(item.payload, digest_size=DIGEST_BYTES).digest()
        ttl_s = min(item.id_ttl_s, self._settings.max_id_ttl_s)
        until = max(batch.deadline // TICKS_PER_SECOND + 1 + ID_GRACE_S, self._clock_s + ttl_s)
        place = (item.push_id, state.id)
        known = self._ids.get(place)
        if known is not None and known.until > self._clock_s:
            return self._repeat(state, place, known, digest, until)
        mid = settle(self._clock, Mid(state.last), batch.sent)
        state.last = mid
        state.ids_until = max(state.ids_until, until)
        if known is None:
            self._ids[place] = _KnownId(mid, digest, until, is_in_table=False)
            self._new_ids.append(place)
        else:
            known.mid, known.digest, known.until = mid, digest, until
            self._changed_ids[place] = known
        self._tally.saved += 1
        prev = Mid(state.stored)
        if item.expire_s > 0:
            self._new_messages += (state.id, mid, self._expiry_base + item.expire_s, bytearray(item.payload))
            state.stored = mid
            state.messages += 1
            state.payload_bytes += len(item.payload)
        return SaveResult(Outcome.SAVED, mid, prev)

    def _repeat(
        self, state: KeyState, place: tuple[str, int], known: _KnownId, digest: bytes, until: int
    ) -> SaveResult:
        if known.digest != digest:
            self._tally.conflicts += 1
            return SaveResult(Outcome.CONFLICT, Mid(0), Mid(0))
        self._tally.repeated += 1
        if until > known.until:
            # The repeat may be repeated in its turn, until its own deadline.
            known.until = until
            state.ids_until = max(state.ids_until, until)
            if known.is_in_table:
                self._changed_ids[place] = known
        return SaveResult(Outcome.REPEATED, known.mid, Mid(0))
