"""Saving in the MySQL store: settle mids, remember ids, insert, keep the limits; for many batches at once.

Three round trips for any number of batches: lock and read, write, commit. A
key over its limits adds one for all such keys. Runs in a worker's thread,
inside a transaction that the worker begins and ends; see worker.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.errors import EnckeError, TooLargeError
from cluster.mids import MAX_SENT_LEAD, STEP, TICKS_PER_SECOND, settle
from cluster.model import Mid
from message.storage.checks import fenced, too_far, too_late
from message.storage.clock import HeardClock, to_whole_s
from message.storage.counters import Tally
from message.storage.limits import StoreLimits
from message.storage.mysql.connection import Connection, Row, literal, literals
from message.storage.mysql.keys import (
    KEY_COLUMNS,
    READ_CLOCK,
    KeyState,
    keep_clock,
    read_clock,
    read_states,
    write_states,
)
from message.storage.rules import FENCE_S, ID_GRACE_S, payload_hash
from message.storage.trimming import most_trimmed, trim, with_slack

# What a row of private_msg takes in a statement beyond its key and payload.
ROW_TEXT_BYTES = 64


class _KnownId:
    """A row of encke_ids."""

    __slots__ = ("digest", "is_changed", "mid", "until_s")

    def __init__(self, mid: int, digest: bytes, until_s: int) -> None:
        self.mid = Mid(mid)
        self.digest = digest
        self.until_s = until_s
        self.is_changed = False


class UnknownIncarnationError(Exception):
    """An incarnation has no row yet that could be locked against a fence."""


def introduce(connection: Connection, incarnations: Iterable[str], heard: HeardClock) -> None:
    """Give incarnations a row each, outside of any transaction."""
    until_s = to_whole_s(read_clock(connection.select(READ_CLOCK)[0], heard)) + FENCE_S
    rows = ",".join(f"({literal(one)},0,{until_s})" for one in sorted(incarnations))
    connection.execute(f"INSERT IGNORE INTO encke_incarnations (name, is_fenced, until_s) VALUES {rows}")


def in_rows(rows: Sequence[str], room: int) -> Iterator[str]:
    """Join rows of VALUES into texts of at most `room` characters."""
    start, size = 0, 0
    for end, row in enumerate(rows):
        if size and size + len(row) > room:
            yield ",".join(rows[start:end])
            start, size = end, 0
        size += len(row) + 1
    if start < len(rows):
        yield ",".join(rows[start:])


class GroupSave:
    """One group of batches on its way through a transaction."""

    def __init__(
        self, connection: Connection, limits: StoreLimits, heard: HeardClock, batches: Sequence[SaveBatch]
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._heard = heard
        self._batches = batches
        self.tally = Tally()
        self._states: dict[bytes, KeyState] = {}
        self._ids: dict[tuple[str, str], _KnownId] = {}
        self._new_messages: list[str] = []

    def run(self) -> list[SaveReply | EnckeError]:
        """Do everything but the commit; answers in the order of the batches.

        Raises:
            UnknownIncarnationError: introduce() them and begin again.
            DRIVER_ERRORS: roll back, nothing is saved.
        """
        fences = self._load()
        answers = [
            fenced()
            if batch.incarnation in fences
            else self._refusal(batch) or SaveReply([self._settle(batch, i) for i in batch.items], self.clock)
            for batch in self._batches
        ]
        self._write()
        return answers

    def _load(self) -> set[str]:
        """Lock the keys and read what is known of them and of the ids; the incarnations that are fenced."""
        # In one order everywhere, so that two transactions do not wait for each other in a ring.
        keys = sorted({batch.key.encode() for batch in self._batches})
        incarnations = sorted({batch.incarnation for batch in self._batches if batch.incarnation})
        new = ",".join(f"({literal(key)},0,0,0,0,0,0,0)" for key in keys)
        by_id: dict[str, set[str]] = defaultdict(set)
        for batch in self._batches:
            for item in batch.items:
                if item.push_id:
                    by_id[item.push_id].add(batch.key)
        places = " OR ".join(
            f"(push_id={literal(push_id)} AND skey IN ({literals(sorted(of))}))"
            for push_id, of in by_id.items()
        )
        statements = [
            "BEGIN",
            # Shared, so that a fence waits for the saves that were there before it.
            f"SELECT name, is_fenced FROM encke_incarnations WHERE name IN ({literals(incarnations)})"
            " ORDER BY name LOCK IN SHARE MODE"
            if incarnations
            else "DO 0",
            # Locks the rows that are there and those that it makes.
            f"INSERT INTO encke_keys ({KEY_COLUMNS}) VALUES {new} ON DUPLICATE KEY UPDATE last=last",
            READ_CLOCK,
            read_states(keys),
            # Messages of keys that are new to us: gopush-cluster's.
            "SELECT p.skey, COUNT(*), SUM(LENGTH(p.msg)), MAX(p.mid) FROM encke_keys k"
            " STRAIGHT_JOIN private_msg p ON p.skey = k.skey"
            f" WHERE k.skey IN ({literals(keys)}) AND k.last = 0 GROUP BY p.skey",
            f"SELECT push_id, skey, mid, digest, until_s FROM encke_ids FORCE INDEX (PRIMARY) WHERE {places}"
            if places
            else "DO 0",
        ]
        _, found, _, (clock_row,), states, older, ids = self._connection.run(statements)
        known = {bytes(name).decode(): bool(is_fenced) for name, is_fenced in found}
        if len(known) < len(incarnations):
            raise UnknownIncarnationError
        self._take_clock(clock_row)
        self._states = {bytes(row[0]): KeyState(row) for row in states}
        for state in self._states.values():
            state.last = max(state.last, int(clock_row[2]))
        for key, messages, payload_bytes, last in older:
            state = self._states[bytes(key)]
            state.messages, state.payload_bytes, state.stored = int(messages), int(payload_bytes), int(last)
            state.last = max(state.last, int(last))
        for push_id, key, mid, digest, until_s in ids:
            if until_s > self._clock_s:
                place = (bytes(push_id).decode(), bytes(key).decode())
                self._ids[place] = _KnownId(mid, bytes(digest), until_s)
        return {name for name, is_fenced in known.items() if is_fenced}

    def _take_clock(self, row: Row) -> None:
        self.clock = read_clock(row, self._heard)
        self._clock_s = to_whole_s(self.clock)
        now_us = int(row[0])
        self._now_s = now_us // 1_000_000
        # End of a message that lives for 0 s: rounded up, so never early.
        self._expiry_base = -(-now_us // 1_000_000)
        self._is_clock_kept = int(row[1]) > self.clock - TICKS_PER_SECOND

    def _refusal(self, batch: SaveBatch) -> EnckeError | None:
        if batch.sent > self.clock + MAX_SENT_LEAD:
            self.tally.ignored_sent += 1
        if batch.deadline < self.clock:
            # Unless it is the repeat of one that was saved in time.
            if all((item.push_id, batch.key) in self._ids for item in batch.items):
                return None
            self.tally.late += len(batch.items)
            return too_late()
        limit_s = self._limits.max_deadline_s
        if batch.deadline > self.clock + limit_s * TICKS_PER_SECOND:
            return too_far(limit_s)
        key_bytes = len(batch.key.encode())
        if any(
            2 * (len(item.payload) + key_bytes) + ROW_TEXT_BYTES > self._connection.max_text_bytes
            for item in batch.items
        ):
            return TooLargeError("the message is over the database's max_allowed_packet")
        return None

    def _settle(self, batch: SaveBatch, item: SaveItem) -> SaveResult:
        state = self._states[batch.key.encode()]
        state.is_changed = True
        if not item.push_id:
            return self._add(state, item, batch.sent)
        digest = payload_hash(item.payload).digest()
        ttl_s = min(item.id_ttl_s, self._limits.max_id_ttl_s)
        until_s = max(batch.deadline // TICKS_PER_SECOND + 1 + ID_GRACE_S, self._clock_s + ttl_s)
        place = (item.push_id, batch.key)
        known = self._ids.get(place)
        if known is not None:
            return self._repeat(state, known, digest, until_s)
        result = self._add(state, item, batch.sent)
        state.ids_until = max(state.ids_until, until_s)
        fresh = self._ids[place] = _KnownId(result.mid, digest, until_s)
        fresh.is_changed = True
        return result

    def _add(self, state: KeyState, item: SaveItem, sent: Mid) -> SaveResult:
        """Store what is not known yet."""
        mid = settle(self.clock, Mid(state.last), sent)
        # Mids of gopush-cluster are no multiples; what follows them is.
        mid = Mid(-(-mid // STEP) * STEP)
        state.last = mid
        self.tally.saved += 1
        prev = Mid(state.stored)
        if item.expire_s > 0:
            ends = self._expiry_base + item.expire_s
            self._new_messages.append(f"({literal(state.key)},{mid},{ends},{literal(item.payload)})")
            state.stored = mid
            state.messages += 1
            state.payload_bytes += len(item.payload)
        return SaveResult(Outcome.SAVED, mid, prev)

    def _repeat(self, state: KeyState, known: _KnownId, digest: bytes, until_s: int) -> SaveResult:
        if known.digest != digest:
            self.tally.conflicts += 1
            return SaveResult(Outcome.CONFLICT, Mid(0), Mid(0))
        self.tally.repeated += 1
        if until_s > known.until_s:
            # The repeat may be repeated in its turn, until its own deadline.
            known.until_s = until_s
            known.is_changed = True
            state.ids_until = max(state.ids_until, until_s)
        return SaveResult(Outcome.REPEATED, known.mid, Mid(0))

    def _write(self) -> None:
        """Put the decisions into the tables."""
        room = self._connection.max_text_bytes
        statements = [
            f"INSERT INTO private_msg (skey, mid, ttl, msg) VALUES {rows}"
            for rows in in_rows(self._new_messages, room)
        ]
        id_rows = [
            f"({literals(place)},{known.mid},{literal(known.digest)},{known.until_s})"
            for place, known in self._ids.items()
            if known.is_changed
        ]
        statements += [
            f"INSERT INTO encke_ids (push_id, skey, mid, digest, until_s) VALUES {rows}"
            " ON DUPLICATE KEY UPDATE mid=VALUES(mid), digest=VALUES(digest), until_s=VALUES(until_s)"
            for rows in in_rows(id_rows, room)
        ]
        most_messages = with_slack(self._limits.max_messages_per_key)
        most_bytes = with_slack(self._limits.max_bytes_per_key)
        over = [
            state
            for state in self._states.values()
            if state.is_changed and (state.messages > most_messages or state.payload_bytes > most_bytes)
        ]
        if over:
            self._run(statements)
            statements = self._trim(over)
        changed = [state for state in self._states.values() if state.is_changed]
        if changed:
            statements.append(write_states(changed))
        # Made only to be locked, by a save that was refused.
        idle = [s.key for s in self._states.values() if s.is_new and not s.is_changed and not s.messages]
        if idle:
            statements.append(f"DELETE FROM encke_keys WHERE skey IN ({literals(idle)}) AND last = 0")
        if not self._is_clock_kept:
            # Once a second, and last: all transactions write this row.
            statements.append(keep_clock(self.clock))
        self._run(statements)

    def _run(self, statements: list[str]) -> None:
        """Run statements in as few round trips as their size allows."""
        part: list[str] = []
        size = 0
        for statement in statements:
            if part and size + len(statement) > self._connection.max_text_bytes:
                self._connection.run(part)
                part, size = [], 0
            part.append(statement)
            size += len(statement)
        if part:
            self._connection.run(part)

    def _trim(self, states: Sequence[KeyState]) -> list[str]:
        """Bring keys within their limits; returns the statements that remove what is too much."""
        selects = [
            f"SELECT mid, ttl, LENGTH(msg) FROM private_msg WHERE skey={literal(state.key)}"
            f" ORDER BY mid LIMIT {most_trimmed(state, self._limits)}"
            for state in states
        ]
        deletes = []
        for state, oldest in zip(states, self._connection.run(selects), strict=True):
            removed_to, unexpired = trim(state, oldest, self._limits, self._now_s)
            self.tally.trimmed += unexpired
            if removed_to:
                deletes.append(
                    f"DELETE FROM private_msg WHERE skey={literal(state.key)} AND mid<={removed_to}"
                )
        return deletes
