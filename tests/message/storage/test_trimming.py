"""When a key is over its limits, its oldest messages go, and what is remembered tells of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cluster.model import Mid
from message.storage.embedded.config import EmbeddedSettings
from message.storage.trimming import most_trimmed, trim, with_slack

LIMITS = EmbeddedSettings(max_messages_per_key=3, max_bytes_per_key=1024)
NOW_S = 100
NONE = Mid(0)


@dataclass
class Held:
    """A key with messages of 100 bytes, unless told otherwise."""

    messages: int
    payload_bytes: int
    stored: Mid
    trimmed: Mid = NONE
    trimmed_until: int = 0


def key_with(*rows: tuple[int, int, int]) -> Held:
    return Held(len(rows), sum(size for _, _, size in rows), Mid(rows[-1][0]))


def small(*mids: int, expires_at: int = NOW_S + 50) -> list[tuple[int, int, int]]:
    return [(mid, expires_at, 100) for mid in mids]


@pytest.mark.parametrize(("limit", "above"), [(1, 1), (31, 31), (32, 33), (1000, 1031)])
def test_key_may_be_over_its_limit_by_a_share_of_it(limit: int, above: int) -> None:
    assert with_slack(limit) == above


def test_key_over_its_messages_loses_the_oldest() -> None:
    rows = small(80, 160, 240, 320, 400)
    key = key_with(*rows)
    assert most_trimmed(key, LIMITS) == 2
    assert trim(key, rows, LIMITS, NOW_S) == (160, 2)
    assert key == Held(3, 300, Mid(400), trimmed=Mid(160), trimmed_until=NOW_S + 50)


def test_key_over_its_bytes_loses_as_many_as_it_takes() -> None:
    rows = [(80, NOW_S + 9, 500), (160, NOW_S + 5, 500), (240, NOW_S + 7, 500)]
    key = key_with(*rows)
    assert most_trimmed(key, LIMITS) == 3, "nobody knows how large they are"
    assert trim(key, rows, LIMITS, NOW_S) == (80, 1)
    assert key == Held(2, 1000, Mid(240), trimmed=Mid(80), trimmed_until=NOW_S + 9)


def test_newest_message_stays_however_large() -> None:
    rows = [*small(80), (160, NOW_S + 5, 5000)]
    key = key_with(*rows)
    assert trim(key, rows, LIMITS, NOW_S) == (80, 1)
    assert trim(key, rows[1:], LIMITS, NOW_S) == (0, 0)
    assert (key.messages, key.payload_bytes) == (1, 5000)


def test_expired_messages_go_without_a_mark() -> None:
    rows = small(80, 160, expires_at=NOW_S) + small(240, 320, 400)
    key = key_with(*rows)
    assert trim(key, rows, LIMITS, NOW_S) == (160, 0)
    assert (key.messages, key.trimmed, key.trimmed_until) == (3, 0, 0)


def test_mark_lasts_as_long_as_the_longest_of_what_was_removed() -> None:
    rows = [(80, NOW_S + 90, 100), (160, NOW_S + 5, 100), *small(240, 320, 400)]
    key = key_with(*rows)
    trim(key, rows, LIMITS, NOW_S)
    assert (key.trimmed, key.trimmed_until) == (160, NOW_S + 90)
    more = small(240)
    key.messages += 1
    trim(key, more, LIMITS, NOW_S)
    assert (key.trimmed, key.trimmed_until) == (240, NOW_S + 90), "also of what was removed before"
