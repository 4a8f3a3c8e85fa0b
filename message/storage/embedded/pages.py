"""Reads pages of many keys with two statements.

During a storm of reconnecting subscribers thousands of pages are asked for
at once, beside an event loop that is busy with them: a call of SQLite per
row, each with a wait for the interpreter lock, costs ten times as much
(bench/store.py --reads).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from cluster.contracts.message import Page
from cluster.mids import MAX_MID
from cluster.model import Key, Message, Mid
from message.storage.embedded.clock import EmbeddedClock
from message.storage.embedded.rows import ManyRows


class Load(msgspec.Struct, frozen=True):
    """One page that was asked for; see MessageService.load_after()."""

    key: Key
    after: Mid
    max_messages: int
    max_bytes: int


# What there is of each key: [number of the load, id, mark, end of the mark, [[mid, end, size], ...]].
_FIND = ManyRows(
    "SELECT json_group_array(json_array(v.column1, k.id, k.trimmed, k.trimmed_until, json(("
    "  SELECT json_group_array(json_array(mid, expires_at, size)) FROM ("
    "   SELECT m.mid, m.expires_at, length(m.payload) AS size FROM messages m INDEXED BY messages_by_key"
    "   WHERE m.key_id = k.id AND m.mid > v.column3 AND m.expires_at > ? ORDER BY m.mid LIMIT ?)))))"
    " FROM (VALUES {rows}) v CROSS JOIN keys k ON k.key = v.column2 WHERE v.column1 >= 0",
    width=3,
)
# All payloads behind each other, and whose they are in that order: [number of the load, mid, end, size].
_FETCH = ManyRows(
    "SELECT json_group_array(json_array(v.column1, m.mid, m.expires_at, length(m.payload))),"
    " CAST(group_concat(m.payload, '') AS BLOB)"
    " FROM (VALUES {rows}) v CROSS JOIN messages m INDEXED BY messages_by_key"
    " ON m.key_id = v.column2 AND m.mid > v.column3 AND m.mid <= v.column4"
    " WHERE v.column1 >= 0 AND m.expires_at > ?",
    width=4,
)


def load_pages(connection: sqlite3.Connection, time: EmbeddedClock, loads: Sequence[Load]) -> list[Page]:
    """Read pages, in the order of the loads. The caller has begun a transaction."""
    now_s = time.wall_s()
    most = max(max(load.max_messages, 1) for load in loads) + 1
    asked: list[Any] = []
    for number, load in enumerate(loads):
        asked += (number, load.key, min(load.after, MAX_MID))
    marks = [Mid(0)] * len(loads)
    has_more = [False] * len(loads)
    wanted: list[Any] = []
    for number, key_id, trimmed, trimmed_until, found in _FIND.select(
        connection, asked, before=(now_s, most)
    ):
        if trimmed_until > now_s:
            marks[number] = Mid(trimmed)
        if found:
            count = _count_that_fit(found, loads[number])
            has_more[number] = count < len(found)
            wanted += (number, key_id, loads[number].after, found[count - 1][0])
    messages: list[list[Message]] = [[] for _ in loads]
    for text, payloads in _FETCH.rows(connection, wanted, after=(now_s,)):
        start = 0
        for number, mid, expires_at, size in msgspec.json.decode(text):
            messages[number].append(Message(mid, payloads[start : start + size], expires_at))
            start += size
    clock = time.mid()
    return [Page(*parts, clock) for parts in zip(messages, has_more, marks, strict=True)]


def _count_that_fit(found: list[tuple[Mid, int, int]], load: Load) -> int:
    """How many of a key's messages make the page: at least one, else up to both limits."""
    room_bytes = load.max_bytes
    for count, (_, _, size) in enumerate(found):
        room_bytes -= size
        if count and (count >= load.max_messages or room_bytes < 0):
            return count
    return len(found)
