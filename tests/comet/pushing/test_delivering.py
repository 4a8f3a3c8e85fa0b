"""comet/pushing/delivering.py: where a channel has missed something."""

from __future__ import annotations

import pytest

from cluster.contracts.message import Outcome, SaveResult
from cluster.model import Mid
from comet.pushing.delivering import has_hole

CURSOR = Mid(800)


def saved(mid: int, prev: int) -> SaveResult:
    return SaveResult(Outcome.SAVED, Mid(mid), Mid(prev))


def repeated(mid: int) -> SaveResult:
    return SaveResult(Outcome.REPEATED, Mid(mid), Mid(0))


REFUSED = SaveResult(Outcome.CONFLICT, Mid(0), Mid(0))


@pytest.mark.parametrize(
    ("results", "is_hole"),
    [
        ([], False),
        ([saved(880, prev=800)], False),
        # Nothing else is stored, or something that was delivered here is newer.
        ([saved(880, prev=0)], False),
        ([saved(880, prev=720)], False),
        # Another node stored something: before them, between them.
        ([saved(960, prev=880)], True),
        ([saved(880, prev=800), saved(960, prev=880)], False),
        ([saved(880, prev=800), saved(1040, prev=960)], True),
        # Stored before, and delivered; or by a save whose answer was lost.
        ([repeated(800)], False),
        ([repeated(720)], False),
        ([repeated(880)], True),
        ([repeated(720), saved(880, prev=800)], False),
        ([saved(880, prev=800), repeated(880)], False),
        ([saved(880, prev=800), repeated(960)], True),
        ([REFUSED], False),
        ([REFUSED, saved(960, prev=880)], True),
    ],
)
def test_a_hole_is_what_was_stored_above_the_cursor_and_not_delivered(
    results: list[SaveResult], is_hole: bool
) -> None:
    assert has_hole(CURSOR, results) is is_hole
