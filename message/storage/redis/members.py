"""Messages as they stand in a sorted set of Redis, ours and those of gopush-cluster.

Ours: ``{"msg":M,"expire":S,"mid":N}`` with the score N; M is the payload as
it came. Older ones have no mid: theirs is the score, and M is brought to the
canonical form. What is neither is nobody's message and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from cluster.canonical import canonical_json
from cluster.mids import MAX_MID
from cluster.model import Message, Mid

_TAIL = re.compile(rb',"expire":([0-9]{1,11}),"mid":([0-9]{1,19})\}\Z')
_HEAD = b'{"msg":'
# Longer than any tail that matches.
_TAIL_BYTES = 64


class _Older(msgspec.Struct):
    """A member that gopush-cluster has written."""

    msg: msgspec.Raw
    expire: int


def read_members(found: Sequence[bytes], now_s: int) -> Iterator[Message | None]:
    """Turn scores and members, in turns, into messages.

    Args:
        found: score, member, score, member, ...
        now_s: what has ended by then is left out.

    Yields:
        A message that has not expired, or None for a member that is not one.
    """
    for score, member in zip(found[::2], found[1::2], strict=True):
        message = _read(score, member)
        if message is None or message.expires_at > now_s:
            yield message


def _read(score: bytes, member: bytes) -> Message | None:
    # redis writes the score of a large set's member as a float when it is not a whole number.
    if not score.isdigit():
        return None
    mid = int(score)
    start = max(len(member) - _TAIL_BYTES, 0)
    if (tail := _TAIL.search(member, start)) and member.startswith(_HEAD) and int(tail[2]) == mid:
        # The store itself has written this: what a save brought is not checked again.
        return Message(Mid(mid), member[len(_HEAD) : tail.start()], int(tail[1]))
    if mid > MAX_MID:
        return None
    try:
        older = msgspec.json.decode(member, type=_Older)
        # Raw is not looked into above.
        payload = canonical_json(bytes(older.msg))
    except (ValueError, RecursionError):
        return None
    return Message(Mid(mid), payload, older.expire)
