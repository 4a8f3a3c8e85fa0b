"""What the MySQL store knows of each key, and of the time: rows of encke_keys and encke_store."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.mids import STEP
from cluster.model import Mid
from message.storage.clock import HeardClock
from message.storage.mysql.connection import NOW_US, Row, literal, literals

KEY_COLUMNS = "skey, last, stored, messages, payload_bytes, trimmed, trimmed_until, ids_until"
READ_CLOCK = f"SELECT {NOW_US}, clock, floor FROM encke_store WHERE id = 1"


class KeyState:
    """A row of encke_keys while a transaction changes it."""

    __slots__ = (
        "ids_until", "is_changed", "is_new", "key", "last", "messages", "payload_bytes", "stored",
        "trimmed", "trimmed_until",
    )  # fmt: skip

    def __init__(self, row: Row) -> None:
        (
            self.key, self.last, self.stored, self.messages, self.payload_bytes, self.trimmed,
            self.trimmed_until, self.ids_until,
        ) = row  # fmt: skip
        # Inserted by this transaction.
        self.is_new = self.last == 0
        self.is_changed = False

    def text(self) -> str:
        """As a row of VALUES."""
        return (
            f"({literal(self.key)},{self.last},{self.stored},{self.messages},{self.payload_bytes},"
            f"{self.trimmed},{self.trimmed_until},{self.ids_until})"
        )


def read_clock(row: Row, heard: HeardClock) -> Mid:
    """The store's clock from a row of READ_CLOCK: the server's own, but never below what is known of it."""
    now_us, kept, _ = row
    clock = int(now_us) * 10
    return Mid(max(clock - clock % STEP, int(kept), heard.bound()))


def write_states(states: Iterable[KeyState]) -> str:
    """The statement that puts states back."""
    rows = ",".join(state.text() for state in states)
    changes = ",".join(f"{name}=VALUES({name})" for name in KEY_COLUMNS.split(", ")[1:])
    return f"INSERT INTO encke_keys ({KEY_COLUMNS}) VALUES {rows} ON DUPLICATE KEY UPDATE {changes}"


def read_states(keys: Iterable[bytes], ending: str = "") -> str:
    """The statement that reads states."""
    return f"SELECT {KEY_COLUMNS} FROM encke_keys WHERE skey IN ({literals(keys)}) {ending}"


def keep_clock(clock: Mid) -> str:
    """The statement that remembers how far the store's clock has come."""
    return f"UPDATE encke_store SET clock = GREATEST(clock, {clock}) WHERE id = 1"
