"""Statements over many rows in one call."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

# Row counts for which a statement is prepared; in between, rows of NULL fill up.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ManyRows:
    """One statement over up to 256 rows of parameters at a time.

    executemany() calls SQLite once per row, which costs more CPU (bench/store.py
    --alternatives), and every call gives up the interpreter lock: a thread
    beside a busy event loop waits up to milliseconds to get it back. For the same
    reason a query returns one row, with everything in it.

    The template must leave out rows whose first column is NULL. Its statements
    should say OR FAIL: SQLite's default keeps a journal of each statement, which
    costs more than the statement, and here every error rolls everything back.
    """

    def __init__(self, template: str, width: int) -> None:
        """Prepare.

        Args:
            template: the statement, with ``{rows}`` where VALUES has its rows.
            width: columns of a row.
        """
        self._width = width
        row = f"({','.join('?' * width)})"
        self._statements = {size: template.replace("{rows}", ",".join([row] * size)) for size in SIZES}

    def execute(self, connection: sqlite3.Connection, parameters: list[Any]) -> None:
        """Run it over rows that stand one after the other in a flat list."""
        largest = SIZES[-1] * self._width
        for start in range(0, len(parameters), largest):
            self._run(connection, parameters[start : start + largest])

    def select(self, connection: sqlite3.Connection, parameters: list[Any]) -> list[Any]:
        """As execute(), for a query that returns one value, a JSON array; the arrays one after the other."""
        largest = SIZES[-1] * self._width
        found: list[Any] = []
        for start in range(0, len(parameters), largest):
            (text,) = self._run(connection, parameters[start : start + largest]).fetchone()
            found += msgspec.json.decode(text)
        return found

    def _run(self, connection: sqlite3.Connection, parameters: list[Any]) -> sqlite3.Cursor:
        rows = len(parameters) // self._width
        size = 1 << (rows - 1).bit_length()
        if size > rows:
            parameters = parameters + [None] * ((size - rows) * self._width)
        return connection.execute(self._statements[size], parameters)
