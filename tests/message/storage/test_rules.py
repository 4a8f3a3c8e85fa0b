"""Numbers that all stores share, and that what they have stored depends on."""

from __future__ import annotations

from message.storage.rules import SECONDS_PER_DAY, last_silent_day, payload_hash


def test_digest_of_a_payload_is_what_stores_keep_already() -> None:
    assert payload_hash(b"[1]").digest().hex() == "ef6555d139bba0ca2326a50024344e1b"


def test_device_is_forgotten_once_it_was_silent_for_more_than_the_days() -> None:
    seen_day = 20_000
    last_second = (seen_day + 31) * SECONDS_PER_DAY - 1
    assert last_silent_day(last_second, 30) < seen_day
    assert last_silent_day(last_second + 1, 30) == seen_day
