"""encke/announcing.py: lines that are read as they were written."""

from __future__ import annotations

import pytest

from cluster.contracts.message import Guarantee
from encke.announcing import READY, Line, Listening, Room, listening, read_line, storing

REDIS = Guarantee("redis", "redis://10.0.0.1:6379/0", "fsync", "an answered push survives: a crash")
FILE = Guarantee("embedded", "/var/lib/my data", "os", "an answered push survives a crash of the process")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (Listening("ws", "0.0.0.0:6968"), "listening ws 0.0.0.0:6968"),
        (Listening("status", "[::1]:6972"), "listening status [::1]:6972"),
        (Room(0), "room for 0 subscribers"),
        (Room(1_048_512), "room for 1,048,512 subscribers"),
        (storing([REDIS])[0], f"storing under {REDIS.location}: {REDIS.promise}"),
        (storing([FILE])[0], f"storing under {FILE.location}: {FILE.promise}"),
    ],
)
def test_line_is_read_as_what_was_written(line: Line, text: str) -> None:
    assert str(line) == text
    assert read_line(text) == line


@pytest.mark.parametrize(
    "text",
    [
        READY,
        "",
        "listening ws",
        "listening ws a:1 b:2",
        "comet-1-0: listening ws 127.0.0.1:1",
        "room for all subscribers",
        "room for 5 subscribers ",
        "storing under x",
        "  encke sub alice",
    ],
)
def test_any_other_line_stays_text(text: str) -> None:
    assert read_line(text) == text


def test_every_listener_has_a_line_in_order() -> None:
    assert listening({"ws": "a:1", "rpc": "b:2"}) == [Listening("ws", "a:1"), Listening("rpc", "b:2")]
