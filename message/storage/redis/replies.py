"""What the save script says, as an answer to the save."""

from __future__ import annotations

import struct

from cluster.contracts.message import Outcome, SaveBatch, SaveReply, SaveResult
from cluster.errors import EnckeError
from cluster.model import Mid
from message.storage.checks import fenced, too_far, too_late
from message.storage.counters import Tally
from message.storage.limits import StoreLimits

_OUTCOMES = {b"%d" % outcome: outcome for outcome in Outcome}
# Asking the class for it is a call in Python.
_SAVED = Outcome.SAVED
# "P", clock, mid, prev.
_PLAIN = struct.Struct("<cddd")


def read_single_saved(text: bytes) -> SaveReply | None:
    """Read what nearly every save is answered, that its only message is stored; None for all else."""
    if len(text) != _PLAIN.size or text[:1] != b"P":
        return None
    _, clock, mid, prev = _PLAIN.unpack(text)
    # Not Mid(...): three calls in Python for every save.
    result = SaveResult(_SAVED, int(mid), int(prev))  # type: ignore[arg-type]
    return SaveReply([result], int(clock))  # type: ignore[arg-type]


def read_save_reply(
    text: bytes, batch: SaveBatch, limits: StoreLimits
) -> tuple[Mid, SaveReply | EnckeError, Tally]:
    """Read "STATUS CLOCK", and for status S "TRIMMED IGNORED" and of each item "OUTCOME MID PREV".

    Returns:
        The server's clock, the answer (an error stands for itself), and what is to be counted.
    """
    status, clock_text, *rest = text.split()
    clock = Mid(int(clock_text))
    tally = Tally()
    if status == b"S":
        tally.trimmed, tally.ignored_sent = int(rest[0]), int(rest[1])
        results = []
        for outcome_text, mid, prev in zip(rest[2::3], rest[3::3], rest[4::3], strict=True):
            outcome = _OUTCOMES[outcome_text]
            tally.count(outcome)
            results.append(SaveResult(outcome, Mid(int(mid)), Mid(int(prev))))
        return clock, SaveReply(results, clock), tally
    if status == b"F":
        return clock, fenced(), tally
    if status == b"L":
        tally.late = len(batch.items)
        return clock, too_late(), tally
    return clock, too_far(limits.max_deadline_s), tally
