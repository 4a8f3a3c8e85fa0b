"""encke/commands/nodes.py: the table."""

from __future__ import annotations

import pytest

from encke.commands.nodes import table, uptime

HEAD = ["KIND", "NAME", "ADDRESSES"]
ROWS = [["comet", "comet-1", "ws=127.0.0.1:6968 tcp=127.0.0.1:6969"], ["web", "w", ""]]


def test_table_is_as_wide_as_its_cells() -> None:
    assert table(HEAD, ROWS, width=0) == [
        "KIND   NAME     ADDRESSES",
        "comet  comet-1  ws=127.0.0.1:6968 tcp=127.0.0.1:6969",
        "web    w",
    ]


@pytest.mark.parametrize("width", [30, 40, 52])
def test_table_fits_the_terminal_by_cutting_the_widest_column(width: int) -> None:
    lines = table(HEAD, ROWS, width)
    assert max(len(line) for line in lines) <= width
    assert lines[1].startswith("comet  comet-1  ws=")
    assert lines[1].endswith("…") is (width < 52)


def test_table_stays_readable_on_a_terminal_that_is_too_narrow() -> None:
    assert table(HEAD, ROWS, width=1)[1] == "comet  comet…  ws=12…"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3725, "1h 2m"), (90_061, "1d 1h"), (-5, "0s")],
)
def test_uptime_is_told_in_two_units(seconds: float, words: str) -> None:
    assert uptime(seconds) == words
