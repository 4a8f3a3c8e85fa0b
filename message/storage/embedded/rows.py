"""Statements over many rows in one call."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

# Row counts for which a statement is prepared; in between, rows of FILLER fill up.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# Every column of a row that is none. A number, because sqlite3 looks for adapters of whatever
# is not exactly an int, a float, a str or a bytearray, and not to find one, as for None
# and bytes, takes 4,500 instructions, more than inserting the row (callgrind).
FILLER = -1


class ManyRows:
    """One statement over up to 256 rows of parameters at a time.

    executemany() calls SQLite once per row, which costs more CPU (bench/store.py
    --alternatives), and every call gives up the interpreter lock: a thread
    beside a busy event loop waits up to milliseconds to get it back. For the same
    reason a query returns one row, with everything in it.

    The template must leave out rows of FILLER. Its statements
    should say OR FAIL: SQLite's default keeps a journal of each statement, which
    costs more than the statement, and here every error rolls everything back.
    Blobs are handed over as bytearrays, for the reason given at FILLER.
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

    def execute(self, connection: sqlite3.Connection, parameters: Sequence[Any]) -> None:
        """Run it over rows that stand one after the other in a flat list."""
        for _ in self._run(connection, parameters, (), ()):
            pass

    def select(
        self, connection: sqlite3.Connection, parameters: Sequence[Any], before: tuple[Any, ...] = ()
    ) -> list[Any]:
        """Run a query that returns one JSON array; the arrays one after the other.

        Args:
            before: further parameters of the template, which stand before the rows.
        """
        found: list[Any] = []
        for cursor in self._run(connection, parameters, before, ()):
            found += msgspec.json.decode(cursor.fetchone()[0])
        return found

    def rows(
        self, connection: sqlite3.Connection, parameters: Sequence[Any], after: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a query that returns one row; a row per 256 rows of parameters.

        Args:
            after: further parameters of the template, which stand after the rows.
        """
        return [cursor.fetchone() for cursor in self._run(connection, parameters, (), after)]

    def _run(
        self,
        connection: sqlite3.Connection,
        parameters: Sequence[Any],
        before: tuple[Any, ...],
        after: tuple[Any, ...],
    ) -> Iterator[sqlite3.Cursor]:
        largest = SIZES[-1] * self._width
        for start in range(0, len(parameters), largest):
            chunk = parameters[start : start + largest]
            rows = len(chunk) // self._width
            size = SIZES[bisect_left(SIZES, rows)]
            padding = (FILLER,) * ((size - rows) * self._width)
            yield connection.execute(self._statements[size], (*before, *chunk, *padding, *after))
