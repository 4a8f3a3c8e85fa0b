"""Reads pages of many keys with two statements; leaves out what is damaged.

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
from message.storage.embedded.damage import intact_payload
from message.storage.embedded.rows import ManyRows


class Load(msgspec.Struct, frozen=True):
    """One page that was asked for; see MessageService.load_after()."""

    key: Key
    after: Mid
    max_messages: int
    max_bytes: int


# A page, and the mids of damaged messages that were left out of it.
Loaded = tuple[Page, list[Mid]]

# What there is of each key: [number of the load, id, mark, end of the mark, [[mid, end, size], ...]].
_FIND = ManyRows(
    "SELECT json_group_array(json_array(v.column1, k.id, k.trimmed, k.trimmed_until, json(("
    "  SELECT json_group_array(json_array(mid, expires_at, size)) FROM ("
    "   SELECT m.mid, m.expires_at, length(m.payload) AS size FROM messages m INDEXED BY messages_by_key"
    "   WHERE m.key_id = k.id AND m.mid > v.column3 AND m.expires_at > ? ORDER BY m.mid LIMIT ?)))))"
    " FROM (VALUES {rows}) v CROSS JOIN keys k ON k.key = v.column2 WHERE v.column1 >= 0",
    width=3,
)
# All payloads behind each other, and whose they are in that order: [number of the load, mid, end, size, crc].
_FETCH = ManyRows(
    "SELECT json_group_array(json_array(v.column1, m.mid, m.expires_at, length(m.payload), m.crc)),"
    " CAST(group_concat(m.payload, '') AS BLOB)"
    " FROM (VALUES {rows}) v CROSS JOIN messages m INDEXED BY messages_by_key"
    " ON m.key_id = v.column2 AND m.mid > v.column3 AND m.mid <= v.column4"
    " WHERE v.column1 >= 0 AND m.expires_at > ?",
    width=4,
)


class _Draft:
    """A page that is being read."""

    __slots__ = ("after", "damaged", "has_more", "key_id", "load", "messages", "trimmed")

    def __init__(self, load: Load) -> None:
        self.load = load
        # What has been looked at so far.
        self.after = min(load.after, MAX_MID)
        self.key_id = 0
        self.messages: list[Message] = []
        # Left out.
        self.damaged: list[Mid] = []
        self.has_more = False
        self.trimmed = Mid(0)


def load_pages(connection: sqlite3.Connection, time: EmbeddedClock, loads: Sequence[Load]) -> list[Loaded]:
    """Read pages, in the order of the loads. The caller has begun a transaction."""
    now_s = time.wall_s()
    drafts = [_Draft(load) for load in loads]
    unread = drafts
    while unread:
        _fetch(connection, now_s, unread, _find(connection, now_s, unread))
        # Who reads on begins behind the last message of a page: there must be one.
        unread = [draft for draft in unread if draft.has_more and not draft.messages]
    clock = time.mid()
    return [(Page(draft.messages, draft.has_more, draft.trimmed, clock), draft.damaged) for draft in drafts]


def _find(connection: sqlite3.Connection, now_s: int, drafts: Sequence[_Draft]) -> list[Any]:
    """Choose the next messages of each page; what _FETCH takes."""
    most = max(max(draft.load.max_messages, 1) for draft in drafts) + 1
    asked: list[Any] = []
    for number, draft in enumerate(drafts):
        asked += (number, draft.load.key, draft.after)
    wanted: list[Any] = []
    for number, key_id, trimmed, trimmed_until, found in _FIND.select(
        connection, asked, before=(now_s, most)
    ):
        draft = drafts[number]
        draft.key_id = key_id
        if trimmed_until > now_s:
            draft.trimmed = Mid(trimmed)
        draft.has_more = False
        if found:
            count = _count_that_fit(found, draft.load)
            draft.has_more = count < len(found)
            last = found[count - 1][0]
            if last <= draft.after:
                # Otherwise the same would be read for ever.
                raise sqlite3.DatabaseError("the index messages_by_key is damaged")
            wanted += (number, key_id, draft.after, last)
            draft.after = last
    return wanted


def _fetch(connection: sqlite3.Connection, now_s: int, drafts: Sequence[_Draft], wanted: list[Any]) -> None:
    """Add what was chosen to the pages, but for what is damaged."""
    for text, payloads in _FETCH.rows(connection, wanted, after=(now_s,)):
        start = 0
        for number, mid, expires_at, size, crc in msgspec.json.decode(text):
            draft = drafts[number]
            payload = intact_payload(draft.key_id, mid, payloads[start : start + size], crc)
            start += size
            if payload is None:
                draft.damaged.append(mid)
            else:
                draft.messages.append(Message(mid, payload, expires_at))


def _count_that_fit(found: list[tuple[Mid, int, int]], load: Load) -> int:
    """How many of a key's messages make the page: at least one, else up to both limits."""
    room_bytes = load.max_bytes
    for count, (_, _, size) in enumerate(found):
        room_bytes -= size
        if count and (count >= load.max_messages or room_bytes < 0):
            return count
    return len(found)
