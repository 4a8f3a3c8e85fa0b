"""Reading the MySQL store. Functions on a worker's connection, each statement by itself."""

from __future__ import annotations

import logging

from cluster.contracts.message import Page, Stored
from cluster.mids import MAX_MID
from cluster.model import Key, Message, Mid
from message.storage.clock import HeardClock, to_whole_s
from message.storage.mysql.connection import NOW_S, Connection, Row, literal
from message.storage.mysql.keys import READ_CLOCK, read_clock
from message.storage.rules import read_payload

log = logging.getLogger(__name__)

# Rows that are fetched at a time: a page of few bytes does not read all of a key's.
CHUNK = 100


def load_after(
    connection: Connection, heard: HeardClock, key: Key, after: Mid, max_messages: int, max_bytes: int
) -> tuple[Page, int]:
    """Read a page; see MessageService.load_after(). Also, how many stored values are no messages."""
    name = literal(key)
    messages: list[Message] = []
    unreadable = 0
    has_more = False
    room_bytes = max_bytes
    above = min(max(after, 0), MAX_MID)
    mark = f"SELECT trimmed, trimmed_until > {NOW_S} FROM encke_keys WHERE skey={name}"
    while True:
        limit = max(1, min(CHUNK, max_messages + 1 - len(messages)))
        # The mark after the messages: one that comes in between is announced for nothing, not missed.
        found, marks, (clock_row,) = connection.run(
            [
                f"SELECT mid, ttl, msg FROM private_msg WHERE skey={name} AND mid>{above} AND ttl>{NOW_S}"
                f" ORDER BY mid LIMIT {limit}",
                mark,
                READ_CLOCK,
            ]
        )
        for row in found:
            message = _read(row)
            above = int(row[0])
            if message is None:
                unreadable += 1
                continue
            room_bytes -= len(message.payload)
            if messages and (len(messages) >= max_messages or room_bytes < 0):
                has_more = True
                break
            messages.append(message)
        if has_more or len(found) < limit:
            break
    if unreadable:
        log.warning("left out %d stored values that are no messages: key=%s", unreadable, key)
    trimmed = Mid(marks[0][0]) if marks and marks[0][1] else Mid(0)
    return Page(messages, has_more, trimmed, read_clock(clock_row, heard)), unreadable


def acknowledged(connection: Connection, key: Key, device: str) -> Mid:
    """The acknowledged mid of a device, 0 if it has none."""
    rows = connection.select(
        f"SELECT mid FROM encke_devices WHERE skey={literal(key)} AND device={literal(device)}"
    )
    return Mid(rows[0][0] if rows else 0)


def inspect(connection: Connection, key: Key) -> Stored:
    """Count what is stored for a key and has not expired."""
    name = literal(key)
    (counted,), devices = connection.run(
        [
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(msg)), 0), COALESCE(MIN(mid), 0), COALESCE(MAX(mid), 0)"
            f" FROM private_msg WHERE skey={name} AND ttl > {NOW_S}",
            f"SELECT device, mid FROM encke_devices WHERE skey={name}",
        ]
    )
    messages, payload_bytes, first, last = map(int, counted)
    return Stored(
        messages,
        payload_bytes,
        Mid(first),
        Mid(last),
        {bytes(device).decode(): mid for device, mid in devices},
    )


def clock(connection: Connection, heard: HeardClock) -> Mid:
    """The store's clock."""
    return read_clock(connection.select(READ_CLOCK)[0], heard)


def is_fenced(connection: Connection, heard: HeardClock, incarnation: str) -> bool:
    """Whether saves of an incarnation are refused."""
    (clock_row,), rows = connection.run(
        [
            READ_CLOCK,
            f"SELECT until_s FROM encke_incarnations WHERE name={literal(incarnation)} AND is_fenced",
        ]
    )
    return bool(rows) and int(rows[0][0]) > to_whole_s(read_clock(clock_row, heard))


def _read(row: Row) -> Message | None:
    """A message, or None when somebody has written something else there."""
    mid, expires_at, stored = row
    # It may be gopush-cluster's. One of ours, which stays as it is, cannot be told by its looks.
    payload = read_payload(bytes(stored))
    return None if payload is None else Message(Mid(mid), payload, expires_at)
