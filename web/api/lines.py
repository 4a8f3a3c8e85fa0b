"""Lines of a push stream that are not answered yet, and which may be sent before others are answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cluster.errors import EnckeError
from cluster.model import Key
from web.codec.params import PushRequest
from web.pushing.pending import PendingPush

# A line with more keys is not sent before those that it follows are answered, nor followed: its
# node would have to look up each of them at once.
MAX_FOLLOWING_KEYS = 128

# Keys that are looked at to find lines that may be sent: about a millisecond.
MAX_LOOK_KEYS = 10_000


class Line:
    """One line that was read: sent, to be sent later, or refused on reading."""

    __slots__ = ("error", "is_sent", "pending", "push", "size")

    def __init__(self, size: int) -> None:
        """It has so many bytes, and was not understood yet."""
        self.size = size
        self.push: PushRequest | None = None
        self.is_sent = False
        # None also where there is no key to send it to.
        self.pending: PendingPush | None = None
        self.error: EnckeError | None = None

    @property
    def keys(self) -> list[Key]:
        """The keys that it is for, as far as they are known."""
        return [] if self.push is None else self.push.keys

    @property
    def is_answered(self) -> bool:
        """Whether its answer is there, and it is not to be tried again."""
        if self.pending is not None:
            return self.pending.is_answered
        return self.is_sent or self.error is not None

    @property
    def may_be_followed(self) -> bool:
        """Whether a line to the same key may be sent before this one is answered."""
        pending = self.pending
        return pending is not None and len(pending.keys) <= MAX_FOLLOWING_KEYS and not pending.may_come_later


def may_send(keys: list[Key], last: Mapping[Key, Line]) -> bool:
    """Whether each unanswered line that one to these keys follows can be followed.

    Args:
        last: the last unanswered line to each key, of those before it.
    """
    if len(keys) > MAX_FOLLOWING_KEYS:
        return last.keys().isdisjoint(keys)
    for key in keys:
        before = last.get(key)
        if before is not None and not before.may_be_followed:
            return False
    return True


def follows(keys: list[Key], last: Mapping[Key, Line]) -> dict[Key, str] | None:
    """What a line to these keys names as the ones before it; see Pusher.begin()."""
    if len(keys) > MAX_FOLLOWING_KEYS:
        return None
    named: dict[Key, str] = {}
    for key in keys:
        before = last.get(key)
        if before is not None and before.pending is not None:
            named[key] = before.pending.push_id
    return named


def sendable(lines: Iterable[Line]) -> Iterator[tuple[Line, PushRequest, Mapping[Key, Line]]]:
    """The lines that were not sent and may be now, in order; each must be sent before the next is asked for.

    Args:
        lines: all that are not answered, in order.

    Yields:
        With each its push, and the last line before it to each key.
    """
    last: dict[Key, Line] = {}
    looked = 0
    for line in lines:
        push = line.push
        if push is None or line.error is not None:
            continue
        looked += len(push.keys)
        if looked > MAX_LOOK_KEYS and last:
            return
        if not line.is_sent and may_send(push.keys, last):
            yield line, push, last
        for key in push.keys:
            last[key] = line
