"""Everything that changes the MySQL store, apart from saving: acknowledge, delete, expire, forget, fence.

Functions on a worker's connection, inside a transaction that the worker
begins and ends; see worker.py. All lock the rows of keys first, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.model import Key, Mid
from message.storage.clock import HeardClock, to_whole_s
from message.storage.mysql.connection import NOW_S, Connection, literal, literals
from message.storage.mysql.keys import READ_CLOCK, KeyState, read_clock, read_states, write_states
from message.storage.rules import FENCE_S, SECONDS_PER_DAY, last_silent_day


def acknowledge(connection: Connection, key: Key, device: str, mid: Mid, max_devices: int) -> None:
    """Move a device's acknowledged mid forward."""
    who = f"skey={literal(key)} AND device={literal(device)}"
    _, known, all_devices, ((now_s,),) = connection.run(
        [
            "BEGIN",
            f"SELECT mid FROM encke_devices WHERE {who} FOR UPDATE",
            f"SELECT device FROM encke_devices WHERE skey={literal(key)} ORDER BY seen_day DESC, mid DESC",
            f"SELECT {NOW_S}",
        ]
    )
    statements = []
    if not known and len(all_devices) >= max_devices:
        silent = literals(bytes(row[0]) for row in all_devices[max_devices - 1 :])
        statements.append(f"DELETE FROM encke_devices WHERE skey={literal(key)} AND device IN ({silent})")
    statements.append(
        "INSERT INTO encke_devices (skey, device, mid, seen_day)"
        f" VALUES ({literal(key)},{literal(device)},{mid},{now_s // SECONDS_PER_DAY})"
        " ON DUPLICATE KEY UPDATE mid=GREATEST(mid, VALUES(mid)), seen_day=VALUES(seen_day)"
    )
    connection.run(statements)


def delete_key(connection: Connection, key: Key, heard: HeardClock) -> int:
    """Delete messages, gap mark and acknowledged mids of a key; how many unexpired messages there were."""
    name = literal(key)
    _, states, ((deleted,),), (clock_row,) = connection.run(
        [
            "BEGIN",
            read_states([key.encode()], "FOR UPDATE"),
            f"SELECT COUNT(*) FROM private_msg WHERE skey={name} AND ttl > {NOW_S}",
            READ_CLOCK,
        ]
    )
    statements = [
        f"DELETE FROM encke_devices WHERE skey={name}",
        f"DELETE FROM private_msg WHERE skey={name}",
    ]
    if states:
        state = KeyState(states[0])
        state.stored = state.messages = state.payload_bytes = state.trimmed = state.trimmed_until = 0
        statements.append(write_states([state]))
        statements += _forget([key.encode()], to_whole_s(read_clock(clock_row, heard)))
    connection.run(statements)
    return int(deleted)


def delete_message(connection: Connection, key: Key, mid: Mid, heard: HeardClock) -> bool:
    """Delete one message; whether it was there, unexpired."""
    _, states, found, (clock_row,) = connection.run(
        [
            "BEGIN",
            read_states([key.encode()], "FOR UPDATE"),
            f"SELECT id, LENGTH(msg), ttl > {NOW_S} FROM private_msg WHERE skey={literal(key)} AND mid={mid}",
            READ_CLOCK,
        ]
    )
    if not found:
        return False
    ((row_id, size, is_unexpired),) = found
    statements = [f"DELETE FROM private_msg WHERE id={row_id}"]
    if states:
        state = KeyState(states[0])
        state.messages -= 1
        state.payload_bytes -= size
        statements.append(write_states([state]))
        statements += _forget([key.encode()], to_whole_s(read_clock(clock_row, heard)))
    connection.run(statements)
    return bool(is_unexpired)


def fence(connection: Connection, incarnation: str, heard: HeardClock) -> None:
    """Remember an incarnation whose saves are refused; waits for those that are being committed."""
    clock = read_clock(connection.select(READ_CLOCK)[0], heard)
    until_s = to_whole_s(clock) + FENCE_S
    connection.run(
        [
            "BEGIN",
            "INSERT INTO encke_incarnations (name, is_fenced, until_s)"
            f" VALUES ({literal(incarnation)},1,{until_s})"
            " ON DUPLICATE KEY UPDATE is_fenced=1, until_s=VALUES(until_s)",
        ]
    )


def remove_expired(
    connection: Connection, heard: HeardClock, device_memory_days: int, limit: int
) -> tuple[int, int]:
    """Remove up to `limit` expired rows of each kind, and forget the keys of which nothing is left.

    Returns:
        Messages removed, and rows of all kinds removed.
    """
    (clock_row,) = connection.select(READ_CLOCK)
    clock_s = to_whole_s(read_clock(clock_row, heard))
    now_s = int(clock_row[0]) // 1_000_000
    messages, ids, marks = connection.run(
        [
            f"SELECT id, skey FROM private_msg WHERE ttl <= {now_s} ORDER BY ttl, id LIMIT {limit}",
            f"SELECT push_id, skey FROM encke_ids WHERE until_s <= {clock_s} ORDER BY until_s LIMIT {limit}",
            f"SELECT skey FROM encke_keys WHERE trimmed_until > 0 AND trimmed_until <= {now_s}"
            f" ORDER BY trimmed_until LIMIT {limit}",
        ]
    )
    removed = 0
    touched = sorted({bytes(row[-1]) for rows in (messages, ids, marks) for row in rows})
    statements = ["BEGIN"]
    if touched:
        removed, statements = _remove_of_keys(
            connection,
            touched,
            [row[0] for row in messages],
            [(bytes(i), bytes(k)) for i, k in ids],
            now_s,
            clock_s,
        )
    silent_day = last_silent_day(now_s, device_memory_days)
    results = len(statements)
    statements += [
        f"DELETE FROM encke_devices WHERE seen_day <= {silent_day} ORDER BY seen_day LIMIT {limit}",
        "SELECT ROW_COUNT()",
        f"DELETE FROM encke_incarnations WHERE until_s <= {clock_s}",
    ]
    devices = int(connection.run(statements)[results + 1][0][0])
    return removed, max(len(messages), len(ids), len(marks), devices)


def _remove_of_keys(
    connection: Connection,
    keys: list[bytes],
    message_ids: list[int],
    ids: list[tuple[bytes, bytes]],
    now_s: int,
    clock_s: int,
) -> tuple[int, list[str]]:
    """Lock keys, and say what takes expired messages, ids and marks from them.

    Returns:
        How many messages, and the statements.
    """
    by_id = ",".join(map(str, message_ids)) or "NULL"
    _, rows, left = connection.run(
        [
            "BEGIN",
            read_states(keys, "ORDER BY skey FOR UPDATE"),
            # Again, now that nobody else can take them away.
            f"SELECT skey, COUNT(*), SUM(LENGTH(msg)) FROM private_msg WHERE id IN ({by_id}) GROUP BY skey",
        ]
    )
    states = {bytes(row[0]): KeyState(row) for row in rows}
    removed = 0
    for key, count, size in left:
        removed += count
        if (state := states.get(bytes(key))) is not None:
            state.messages -= int(count)
            state.payload_bytes -= int(size)
    for state in states.values():
        if 0 < state.trimmed_until <= now_s:
            state.trimmed = state.trimmed_until = 0
    statements = [f"DELETE FROM private_msg WHERE id IN ({by_id})"]
    if ids:
        places = " OR ".join(f"(push_id={literal(push_id)} AND skey={literal(key)})" for push_id, key in ids)
        statements.append(f"DELETE FROM encke_ids WHERE until_s <= {clock_s} AND ({places})")
    if states:
        statements.append(write_states(states.values()))
        statements += _forget(states, clock_s)
    return removed, statements


def _forget(keys: Iterable[bytes], clock_s: int) -> list[str]:
    """Drop keys of which nothing is left; fold their last mids into the floor."""
    gone = (
        f"FROM encke_keys WHERE skey IN ({literals(keys)}) AND messages <= 0 AND trimmed_until = 0"
        f" AND ids_until <= {clock_s}"
    )
    return [
        f"SELECT COALESCE(MAX(last), 0) INTO @encke_floor {gone}",
        # All transactions share this row: written only when it changes, and last.
        f"DELETE {gone}",
        "UPDATE encke_store SET floor = GREATEST(floor, @encke_floor) WHERE id = 1 AND floor < @encke_floor",
    ]
