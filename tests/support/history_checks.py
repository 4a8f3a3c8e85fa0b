"""What must hold of a recorded history: nothing lost, repeated, reordered or made up.

====  =========================================================================
H0    every key with stored pushes was fetched from 0 after its last answer
H1    whatever arrives was pushed to that key, before it arrived
H2    one uid has one mid and one mid has one uid, per key
H3    what is known to be stored is in every later fetch, unless expired,
      deleted, or pushed out by `cap` newer ones (the oldest first)
H3b   nothing is fetched later than its expiry + 2 s
H3c   what was pushed before a deletion does not come back after it
H4    mids increase on a connection and in a fetch, and from an answered push
      to one that began later
H5    a connection that saw mid M saw everything between its start and M, or
      was told of a gap
H6    no mid twice on a connection, none at or below the one it resumed from
H7    a connection that stays open gets every message, or is closed
H9    what was pushed with expire 0 is never stored
H10   what was refused never arrives; what nobody knows is done wholly or not at all
H11   mids are positive, below 2**63, multiples of 80
H11b  an answer of /1/time/get is not above the mid of a push that began after it
====  =========================================================================
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.history import Fault, Fetch, History, KeyHistory, Session, Story, Time

# A store that searches for expired messages once a second, and the clocks' rounding.
EXPIRY_GRACE_S = 2.0
MID_STEP = 80


@dataclass(frozen=True)
class Rules:
    """What the server was configured to do."""

    # Messages that are stored per key.
    cap: int = 1000
    # Seconds within which an open connection gets what was answered.
    within_s: float = 5.0


@dataclass(frozen=True)
class Violation:
    """One broken rule."""

    rule: str
    key: str
    text: str


@dataclass
class _Check:
    """One key's history and what all its rules need."""

    history: KeyHistory
    rules: Rules
    faults: list[Fault]
    times: list[Time]
    # When the recording ended.
    end: float
    # Stories with a mid, by mid.
    by_mid: list[Story] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = [s for s in self.history.stories.values() if s.mid is not None]
        self.by_mid = sorted(known, key=lambda story: story.mid or 0)

    def between(self, after: int, before: int) -> list[Story]:
        """Stories whose mid is above `after` and below `before`."""
        low = bisect.bisect_right(self.by_mid, after, key=lambda story: story.mid or 0)
        high = bisect.bisect_left(self.by_mid, before, key=lambda story: story.mid or 0)
        return self.by_mid[low:high]


def check(history: History, rules: Rules | None = None) -> list[Violation]:
    """Find every broken rule.

    Args:
        history: a finished recording: connections without a Close were open until its last event.
    """
    keys = history.by_key()
    end = max((event.t for event in history.events), default=0.0)
    found: list[Violation] = []
    for key, one in sorted(keys.items()):
        context = _Check(one, rules or Rules(), history.faults(), history.times(), end)
        for rule, text in _broken(context):
            found.append(Violation(rule, key, text))
    return found


def _broken(context: _Check) -> Iterator[tuple[str, str]]:
    yield from _final_fetch(context)
    yield from _identity(context)
    yield from _durability(context)
    yield from _removal(context)
    yield from _order(context)
    for session in context.history.sessions:
        yield from _session_order(session)
        yield from _gaps(context, session)
        yield from _delivery(context, session)
    yield from _unstored(context)
    yield from _refusals(context)
    yield from _mid_form(context)


def _final_fetch(context: _Check) -> Iterator[tuple[str, str]]:
    stories = context.history.stories.values()
    last = max((s.acked for s in stories if s.acked is not None and s.is_stored), default=None)
    if last is None:
        return
    if not any(f.after == 0 and f.t0 >= last for f in context.history.fetches):
        yield "H0", "not fetched from 0 after its last answer: durability was not checked"


def _identity(context: _Check) -> Iterator[tuple[str, str]]:
    mids: dict[str, int] = {}
    uids: dict[int, str] = {}
    for t, mid, uid in context.history.observations():
        story = context.history.stories.get(uid)
        if story is None:
            yield "H1", f"{uid!r} (mid {mid}) was never pushed to this key"
        elif t < story.begun:
            yield "H1", f"{uid!r} arrived before it was pushed"
        if mids.setdefault(uid, mid) != mid:
            yield "H2", f"{uid!r} has the mids {mids[uid]} and {mid}"
        if uids.setdefault(mid, uid) != uid:
            yield "H2", f"mid {mid} is {uids[mid]!r} and {uid!r}"


def _durability(context: _Check) -> Iterator[tuple[str, str]]:
    for fetch in context.history.fetches:
        present = {uid for _, uid in fetch.messages}
        for story in context.history.stories.values():
            done = story.surely_done
            if not story.is_stored or story.uid in present or done is None or done > fetch.t0:
                continue
            if story.mid is not None and story.mid <= fetch.after:
                continue
            if story.mid is None and fetch.after > 0:
                # It may lie below; a fetch from 0 decides.
                continue
            if story.may_have_expired(fetch.t) or context.history.may_be_deleted(story, fetch.t):
                continue
            if not _was_pushed_out(context, story, fetch):
                rule = "H3" if story.acked is not None else "H10"
                yield rule, f"{story.uid!r} (mid {story.mid}) is missing from the fetch at {fetch.t:.3f}"


def _was_pushed_out(context: _Check, story: Story, fetch: Fetch) -> bool:
    """Whether `cap` newer messages may have taken its place, and nothing older is still there."""
    stories = context.history.stories
    newer = 0
    for other in stories.values():
        if not other.is_stored or other.is_refused or other is story or other.begun > fetch.t:
            continue
        if story.mid is not None and other.mid is not None:
            newer += other.mid > story.mid
        else:
            # Not certainly older: it was not answered before this one began.
            newer += other.acked is None or other.acked >= story.begun
    is_oldest_first = story.mid is None or all(mid > story.mid for mid, _ in fetch.messages)
    return newer >= context.rules.cap and is_oldest_first


def _removal(context: _Check) -> Iterator[tuple[str, str]]:
    stories = context.history.stories
    for fetch in context.history.fetches:
        for _, uid in fetch.messages:
            story = stories.get(uid)
            if story is None or story.acked is None:
                continue
            if story.is_stored and fetch.t0 > story.acked + story.expire_s + EXPIRY_GRACE_S:
                yield (
                    "H3b",
                    f"{uid!r} was fetched {fetch.t0 - story.acked - story.expire_s:.1f} s after expiry",
                )
            if any(d.t0 > story.acked and fetch.t0 > d.t for d in context.history.deletes):
                yield "H3c", f"{uid!r} came back after its key was deleted"


def _order(context: _Check) -> Iterator[tuple[str, str]]:
    acked = sorted((s for s in context.by_mid if s.acked is not None), key=lambda s: s.acked or 0.0)
    begun = sorted(context.by_mid, key=lambda s: s.begun)
    highest: Story | None = None
    index = 0
    for story in begun:
        while index < len(acked) and (acked[index].acked or 0.0) < story.begun:
            if highest is None or (acked[index].mid or 0) > (highest.mid or 0):
                highest = acked[index]
            index += 1
        if highest is not None and (story.mid or 0) <= (highest.mid or 0):
            yield (
                "H4",
                f"{story.uid!r} ({story.mid}) began after the answer of {highest.uid!r} ({highest.mid})",
            )
    for fetch in context.history.fetches:
        mids = [mid for mid, _ in fetch.messages]
        if mids != sorted(set(mids)):
            yield "H4", f"a fetch is not in the order of its mids: {mids}"
        if mids and min(mids) <= fetch.after:
            yield "H6", f"a fetch above {fetch.after} answered {min(mids)}"


def _session_order(session: Session) -> Iterator[tuple[str, str]]:
    mids = [live.mid for live in session.live]
    if len(set(mids)) != len(mids):
        yield "H6", f"connection {session.conn} got a mid twice"
    elif mids != sorted(mids):
        yield "H4", f"connection {session.conn} got its mids out of order"
    if session.resume is not None and mids and min(mids) <= session.resume:
        yield "H6", f"connection {session.conn} resumed above {session.resume} and got {min(mids)}"


def _is_announced(session: Session, mid: int) -> bool:
    return any(g.after < mid and (g.before is None or mid < g.before) for g in session.gaps)


def _is_due(context: _Check, session: Session, story: Story) -> bool:
    """Whether this connection must see the story, as far as its start is concerned."""
    if session.opened is None or story.is_refused:
        return False
    if session.resume is None:
        # Live only: what began after its first heartbeat.
        return story.begun > session.opened
    if not story.is_stored:
        # Held messages that are not stored may be dropped while it catches up.
        return story.begun > session.opened + context.rules.within_s
    return story.mid is None or story.mid > session.resume


def _gaps(context: _Check, session: Session) -> Iterator[tuple[str, str]]:
    if not session.live:
        return
    last = session.live[-1]
    got = {live.uid for live in session.live}
    for story in context.between(session.resume or 0, last.mid):
        if story.uid in got or not _is_due(context, session, story):
            continue
        assert story.mid is not None
        if story.is_stored and story.may_have_expired(last.t):
            continue
        if context.history.may_be_deleted(story, last.t) or _is_announced(session, story.mid):
            continue
        yield "H5", f"connection {session.conn} saw {last.mid} but not {story.uid!r} ({story.mid})"


def _delivery(context: _Check, session: Session) -> Iterator[tuple[str, str]]:
    if session.opened is None:
        return
    got = {live.uid: live.t for live in session.live}
    for story in context.history.stories.values():
        if story.acked is None or not _is_due(context, session, story):
            continue
        deadline = _deadline(context, max(story.acked, session.opened))
        if deadline > context.end or (session.closed is not None and session.closed <= deadline):
            continue
        if story.uid in got and got[story.uid] <= deadline:
            continue
        if story.is_stored and story.may_have_expired(deadline):
            continue
        if context.history.may_be_deleted(story, deadline):
            continue
        if story.mid is not None and _is_announced(session, story.mid):
            continue
        yield "H7", f"connection {session.conn} stayed open and did not get {story.uid!r} in time"


def _deadline(context: _Check, start: float) -> float:
    deadline = start + context.rules.within_s
    for fault in context.faults:
        if fault.t <= deadline and fault.end >= start:
            deadline = max(deadline, fault.end + context.rules.within_s)
    return deadline


def _unstored(context: _Check) -> Iterator[tuple[str, str]]:
    stories = context.history.stories
    unstored = {uid: s for uid, s in stories.items() if not s.is_stored}
    for fetch in context.history.fetches:
        for _, uid in fetch.messages:
            if uid in unstored:
                yield "H9", f"{uid!r} was pushed with expire 0 and fetched"
    for session in context.history.sessions:
        for live in session.live:
            acked = unstored[live.uid].acked if live.uid in unstored else None
            if acked is not None and acked < session.begun:
                yield "H9", f"{live.uid!r} was pushed with expire 0 before {session.conn} subscribed"


def _refusals(context: _Check) -> Iterator[tuple[str, str]]:
    for story in context.history.stories.values():
        if story.is_refused and story.seen is not None:
            yield "H10", f"{story.uid!r} was refused and arrived"


def _mid_form(context: _Check) -> Iterator[tuple[str, str]]:
    for story in context.by_mid:
        mid = story.mid or 0
        if not 0 < mid < 2**63 or mid % MID_STEP:
            yield "H11", f"{story.uid!r} has the mid {mid}"
        for time in context.times:
            if time.t < story.begun and mid < time.timeid:
                yield "H11b", f"{story.uid!r} has {mid}, below {time.timeid} that was told before it"
