"""What a store was asked for is counted until it is answered, and refused over the limits."""

from __future__ import annotations

import pytest

from cluster.contracts.message import SaveBatch, SaveItem
from cluster.errors import OverloadedError, RequestError, UnavailableError
from cluster.model import Key, Mid
from message.storage.embedded.config import EmbeddedSettings
from message.storage.waiting import Waiting

SAVE = SaveBatch(Key("bob"), [SaveItem("", b"[1]", 60)], Mid(0), Mid(80))


def open_waiting() -> Waiting:
    waiting = Waiting(EmbeddedSettings(max_queued_saves=3, max_queued_bytes=1024, max_queued_reads=2))
    waiting.is_open = True
    return waiting


def test_store_that_is_not_open_takes_nothing() -> None:
    waiting = open_waiting()
    waiting.is_open = False
    refusal = waiting.admit_save(SAVE, 3)
    assert isinstance(refusal, UnavailableError)
    assert "not open" in str(refusal)
    for ask in (waiting.require_open, waiting.admit_change, waiting.admit_read):
        with pytest.raises(UnavailableError, match="not open"):
            ask()
    assert waiting.writes == 0


def test_saves_and_changes_share_a_limit_and_free_it_when_they_are_answered() -> None:
    waiting = open_waiting()
    assert waiting.admit_save(SAVE, 3) is None
    assert waiting.admit_save(SAVE, 3) is None
    waiting.admit_change()
    assert isinstance(waiting.admit_save(SAVE, 3), OverloadedError)
    with pytest.raises(OverloadedError):
        waiting.admit_change()
    assert waiting.writes == 3

    waiting.end_writes(3, 6)
    assert waiting.writes == 0
    assert waiting.admit_save(SAVE, 1024) is None


def test_bytes_are_bounded_but_a_save_that_is_alone_is_taken() -> None:
    waiting = open_waiting()
    assert waiting.admit_save(SAVE, 5000) is None
    assert isinstance(waiting.admit_save(SAVE, 1), OverloadedError)
    waiting.end_writes(1, 5000)
    assert waiting.admit_save(SAVE, 1000) is None
    assert waiting.admit_save(SAVE, 24) is None
    assert isinstance(waiting.admit_save(SAVE, 1), OverloadedError)


def test_save_that_can_never_be_stored_is_not_counted() -> None:
    waiting = open_waiting()
    assert isinstance(waiting.admit_save(SaveBatch(Key(""), [], Mid(0), Mid(80)), 0), RequestError)
    assert waiting.writes == 0


def test_reads_have_a_limit_of_their_own() -> None:
    waiting = open_waiting()
    waiting.admit_read()
    waiting.admit_read()
    with pytest.raises(OverloadedError):
        waiting.admit_read()
    waiting.admit_change()
    waiting.end_reads(2)
    waiting.admit_read()


def test_last_change_is_taken_after_the_end() -> None:
    waiting = open_waiting()
    waiting.is_open = False
    waiting.add_last_change()
    assert waiting.writes == 1
    waiting.end_writes(1)
    assert waiting.writes == 0
