"""The checker must find every rule that is broken, and nothing in a sound history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.support.history import (
    Ack,
    Close,
    Delete,
    Event,
    Fault,
    Fetch,
    Gap,
    History,
    Live,
    Open,
    Push,
    Sub,
    Time,
    Unknown,
)
from tests.support.history_checks import Rules, check

Events = list[Event]

# Mids of what is pushed below.
A, B, Z, C = 1600, 1760, 1840, 2080
LATER = 2400

FINAL = Fetch(30.0, 31.0, "k", 0, ((A, "a"), (B, "b"), (C, "c")))


def sound() -> Events:
    """One key: two stored messages, one unstored, a resume, a refusal, a push without an answer."""
    return [
        Time(0.1, 0.2, 800),
        Push(1.0, "a", ("k",), 600),
        Ack(2.0, "a", 0),
        Sub(3.0, "c1", "k", 0),
        Open(3.1, "c1"),
        Live(3.2, "c1", A, "a"),
        Push(4.0, "b", ("k",), 600),
        Live(4.5, "c1", B, "b"),
        Ack(5.0, "b", 0),
        Push(12.0, "z", ("k",), 0),
        Live(12.1, "c1", Z, "z"),
        Ack(12.2, "z", 0),
        Close(13.0, "c1"),
        Push(14.0, "c", ("k",), 600),
        Ack(15.0, "c", 0),
        Sub(16.0, "c2", "k", Z),
        Open(16.1, "c2"),
        Live(16.2, "c2", C, "c"),
        Push(17.0, "u", ("k",), 600),
        Unknown(18.0, "u"),
        Push(19.0, "r", ("k",), 600),
        Ack(20.0, "r", 65534),
        Push(21.0, "f", ("k", "other"), 0),
        Ack(22.0, "f", 0, ("k", "other")),
        FINAL,
    ]


def without(*gone: Event) -> Events:
    return [event for event in sound() if event not in gone]


def with_more(*more: Event) -> Events:
    return sorted([*sound(), *more], key=lambda event: event.t)


def replaced(old: Event, new: Event) -> Events:
    events = sound()
    events[events.index(old)] = new
    return events


def fetched(*messages: tuple[int, str], t: float = 30.0, after: int = 0) -> Fetch:
    return Fetch(t, t + 1, "k", after, messages)


def rules_broken(events: Events, rules: Rules | None = None) -> set[str]:
    history = History(lambda: 0.0)
    for event in events:
        history.add(event)
    return {violation.rule for violation in check(history, rules)}


def test_sound_history_breaks_no_rule() -> None:
    assert rules_broken(sound()) == set()


LIVE_A, LIVE_B = Live(3.2, "c1", A, "a"), Live(4.5, "c1", B, "b")
LIVE_Z, LIVE_C = Live(12.1, "c1", Z, "z"), Live(16.2, "c2", C, "c")

# The third message has a mid below that of the second.
REORDERED: Events = [
    Sub(16.0, "c2", "k", None),
    Open(16.1, "c2"),
    fetched((A, "a"), (A + 80, "c"), (B, "b")),
]

BROKEN: dict[str, tuple[set[str], Events]] = {
    "key that was never fetched at the end": ({"H0"}, without(FINAL)),
    "last fetch before the last answer": (
        {"H0"},
        replaced(FINAL, dataclasses.replace(FINAL, t0=14.5, t=31.0)),
    ),
    "last fetch not from 0": ({"H0"}, replaced(FINAL, fetched((B, "b"), (C, "c"), after=A))),
    "message that nobody pushed": ({"H1"}, with_more(Live(12.9, "c1", Z + 80, "made up"))),
    "message of another key": (
        {"H1"},
        with_more(Push(2.5, "x", ("other",), 0), Ack(2.6, "x", 0), Live(12.9, "c1", Z + 80, "x")),
    ),
    "message that arrives before it was pushed": (
        {"H1"},
        replaced(LIVE_B, dataclasses.replace(LIVE_B, t=3.5)),
    ),
    "message with another mid when fetched": (
        {"H2"},
        replaced(FINAL, fetched((A, "a"), (B, "b"), (C + 80, "c"))),
    ),
    "message with another mid than its answer told": (
        {"H2"},
        replaced(Ack(5.0, "b", 0), Ack(5.0, "b", 0, mids=(("k", B - 80),))),
    ),
    "mid of two messages": (
        {"H2"},
        replaced(FINAL, fetched((A, "a"), (B, "b"), (Z, "c"))),
    ),
    "answered message that is gone": ({"H3"}, replaced(FINAL, fetched((A, "a"), (B, "b")))),
    "answered message that is gone from the middle": (
        {"H3"},
        replaced(FINAL, fetched((A, "a"), (C, "c"))),
    ),
    "answered message that nobody ever saw": (
        {"H3", "H7"},
        with_more(Push(23.0, "n", ("k",), 600), Ack(23.1, "n", 0)),
    ),
    "message that a second fetch has lost": (
        {"H3"},
        with_more(fetched((B, "b"), (C, "c"), t=40.0)),
    ),
    "expired message that is still fetched": (
        {"H3b"},
        replaced(Push(14.0, "c", ("k",), 600), Push(14.0, "c", ("k",), 5)),
    ),
    "deleted message that comes back": ({"H3c"}, with_more(Delete(25.0, 26.0, "k"))),
    "mids out of order on a connection": (
        {"H4"},
        sorted(replaced(LIVE_A, Live(4.6, "c1", A, "a")), key=lambda event: event.t),
    ),
    "mids out of order in a fetch": ({"H4"}, replaced(FINAL, fetched((B, "b"), (A, "a"), (C, "c")))),
    "mid below that of an earlier answered push": (
        {"H4", "H5"},
        [*without(LIVE_C, Sub(16.0, "c2", "k", Z), Open(16.1, "c2"), FINAL), *REORDERED],
    ),
    "gap on a connection": ({"H5", "H7"}, without(LIVE_B)),
    "gap after a resume": (
        {"H5", "H7"},
        replaced(Sub(16.0, "c2", "k", Z), Sub(16.0, "c2", "k", A)),
    ),
    "gap where an unstored message was": (
        {"H5"},
        with_more(
            Sub(3.0, "c3", "k", None),
            Open(3.1, "c3"),
            Live(4.5, "c3", B, "b"),
            Push(12.3, "y", ("k",), 0),
            Live(12.4, "c1", Z + 80, "y"),
            Live(12.4, "c3", Z + 80, "y"),
            Close(12.5, "c3"),
        ),
    ),
    "message that came twice": ({"H6"}, with_more(Live(13.0, "c1", Z, "z"))),
    "message at the mid that was resumed from": (
        {"H6"},
        replaced(Sub(16.0, "c2", "k", Z), Sub(16.0, "c2", "k", C)),
    ),
    "fetched message that was not asked for": (
        {"H6"},
        with_more(fetched((A, "a"), (B, "b"), t=10.0, after=A)),
    ),
    "open connection that gets nothing": ({"H7"}, without(LIVE_C)),
    "open connection that gets it late": (
        {"H7"},
        [dataclasses.replace(e, t=25.0) if e == LIVE_C else e for e in sound()],
    ),
    "unstored message that is fetched": (
        {"H9"},
        replaced(FINAL, fetched((A, "a"), (B, "b"), (Z, "z"), (C, "c"))),
    ),
    "unstored message that arrives at a later subscription": (
        {"H9"},
        with_more(
            Push(2.1, "y", ("k",), 0),
            Ack(2.2, "y", 0),
            Sub(16.0, "c3", "k", None),
            Open(16.1, "c3"),
            Live(16.3, "c3", A + 80, "y"),
        ),
    ),
    "refused message that is stored": (
        {"H10"},
        replaced(FINAL, fetched((A, "a"), (B, "b"), (C, "c"), (C + 80, "r"))),
    ),
    "unanswered message that was delivered and is not stored": (
        {"H10"},
        with_more(Live(17.5, "c2", C + 80, "u")),
    ),
    "mid that JavaScript would not print": (
        {"H11"},
        with_more(Push(22.5, "j", ("k",), 0), Live(22.6, "c2", LATER + 16, "j"), Ack(22.7, "j", 0)),
    ),
    "mid below a time that was told before": ({"H11b"}, with_more(Time(0.3, 0.4, A + 80))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_history_is_found(name: str) -> None:
    expected, events = BROKEN[name]
    found = rules_broken(events)
    assert found == expected


def _expired() -> Events:
    events = replaced(Push(14.0, "c", ("k",), 600), Push(14.0, "c", ("k",), 10))
    events[-1] = fetched((A, "a"), (B, "b"))
    return events


def _deleted() -> Events:
    events = with_more(Delete(25.0, 26.0, "k"))
    events[-1] = fetched()
    return events


def _gap() -> Events:
    events = replaced(Sub(16.0, "c2", "k", Z), Sub(16.0, "c2", "k", A))
    events.insert(events.index(LIVE_C), Gap(16.15, "c2", A, C))
    return events


def _gap_to_the_end() -> Events:
    events = without(LIVE_C)
    events.append(Gap(32.0, "c2", Z, None))
    return events


def _pushed_out() -> Events:
    events = sound()
    events[-1] = fetched((C, "c"))
    return events


EXCUSED: dict[str, tuple[Callable[[], Events], Rules]] = {
    "an expired message may be missing": (_expired, Rules()),
    "a deleted message may be missing": (_deleted, Rules()),
    "an announced gap is not a gap": (_gap, Rules()),
    "an announced gap may have no end": (_gap_to_the_end, Rules()),
    "older messages may be pushed out by newer ones": (_pushed_out, Rules(cap=1)),
    "a delivery may be late in a fault": (
        lambda: [*without(LIVE_C)[:-1], Fault(16.5, 29.0), FINAL],
        Rules(),
    ),
    "a connection that was closed owes nothing": (
        lambda: [*without(LIVE_C)[:-1], Close(16.3, "c2"), FINAL],
        Rules(),
    ),
    "a connection without a resume owes nothing from before": (
        lambda: [*sound()[:-1], Sub(24.0, "c3", "k", None), Open(24.1, "c3"), FINAL],
        Rules(),
    ),
    "an unanswered push may have been done": (
        lambda: [
            *sound()[:-1],
            Live(29.0, "c2", C + 80, "u"),
            fetched((A, "a"), (B, "b"), (C, "c"), (C + 80, "u")),
        ],
        Rules(),
    ),
}


@pytest.mark.parametrize("name", EXCUSED)
def test_what_is_allowed_breaks_no_rule(name: str) -> None:
    make, rules = EXCUSED[name]
    assert rules_broken(make(), rules) == set()


def test_newer_message_pushed_out_before_an_older_one_is_found() -> None:
    events = replaced(FINAL, fetched((A, "a"), (C, "c")))
    assert rules_broken(events, Rules(cap=1)) == {"H3"}
