"""What happened in a run: events on one monotonic clock, gathered per key for the checks.

Only facts that a client can see are recorded. history_checks.py says what
must hold of them. Pure: the clock is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

# Answer codes of the compatible API.
OK, PARAMETER, NO_NODE, INTERNAL = 0, 65534, 1001, 65535


@dataclass(frozen=True)
class Push:
    """A push to some keys begins. uid stands in the payload and is unique."""

    t: float
    uid: str
    keys: tuple[str, ...]
    expire_s: int


@dataclass(frozen=True)
class Ack:
    """Its answer. Keys that the answer calls failed are in failed_keys."""

    t: float
    uid: str
    ret: int
    failed_keys: tuple[str, ...] = ()
    # What the answer says of (key, mid), if it says so.
    mids: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Unknown:
    """No answer came: done or not, nobody knows."""

    t: float
    uid: str


@dataclass(frozen=True)
class Sub:
    """A subscription is sent. resume None = live only."""

    t: float
    conn: str
    key: str
    resume: int | None


@dataclass(frozen=True)
class Open:
    """Its first heartbeat arrived."""

    t: float
    conn: str


@dataclass(frozen=True)
class Live:
    """A message arrived on a connection."""

    t: float
    conn: str
    mid: int
    uid: str


@dataclass(frozen=True)
class Gap:
    """A gap was announced on a connection. before None = nothing is stored any more."""

    t: float
    conn: str
    after: int
    before: int | None


@dataclass(frozen=True)
class Close:
    """A connection ended, whoever ended it. Nothing arrived on it later."""

    t: float
    conn: str
    code: int = 0


@dataclass(frozen=True)
class Fetch:
    """Stored messages above `after`, as (mid, uid), asked at t0, answered at t."""

    t0: float
    t: float
    key: str
    after: int
    messages: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Delete:
    """A key was deleted: asked at t0, answered at t."""

    t0: float
    t: float
    key: str


@dataclass(frozen=True)
class Time:
    """/1/time/get: asked at t0, answered at t."""

    t0: float
    t: float
    timeid: int


@dataclass(frozen=True)
class Fault:
    """Between these times deliveries may be late."""

    t: float
    end: float


Event = Push | Ack | Unknown | Sub | Open | Live | Gap | Close | Fetch | Delete | Time | Fault


@dataclass
class Story:
    """A push to one key, with all that became known of it."""

    uid: str
    begun: float
    expire_s: int
    # Time of an answer that says it was done for this key.
    acked: float | None = None
    # The answer says that it was surely not done.
    is_refused: bool = False
    # First time that a subscriber or a fetch showed it.
    seen: float | None = None
    # As its answer says, or as it was seen.
    mid: int | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the store is meant to have it."""
        return self.expire_s > 0

    @property
    def surely_done(self) -> float | None:
        """From when on it is known to have been done."""
        times = [t for t in (self.acked, self.seen) if t is not None]
        return min(times) if times else None

    def may_have_expired(self, now: float) -> bool:
        """Whether its time may be over at `now`."""
        return now >= self.begun + self.expire_s


@dataclass
class Session:
    """One connection."""

    conn: str
    begun: float
    resume: int | None
    opened: float | None = None
    closed: float | None = None
    live: list[Live] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass
class KeyHistory:
    """Everything of one key."""

    key: str
    stories: dict[str, Story] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)
    # (time, mid, uid) of answers that name the mid.
    told: list[tuple[float, int, str]] = field(default_factory=list)

    def may_be_deleted(self, story: Story, now: float) -> bool:
        """Whether a deletion may have taken it by `now`."""
        return any(d.t >= story.begun and d.t0 <= now for d in self.deletes)

    def observations(self) -> Iterable[tuple[float, int, str]]:
        """(time, mid, uid) of every delivery, fetched message and answer that names the mid."""
        yield from self.told
        yield from self.sightings()

    def sightings(self) -> Iterable[tuple[float, int, str]]:
        """(time, mid, uid) of every delivery and fetched message."""
        for session in self.sessions:
            for live in session.live:
                yield live.t, live.mid, live.uid
        for fetch in self.fetches:
            for mid, uid in fetch.messages:
                yield fetch.t, mid, uid


class History:
    """A recording. The methods are called in the order in which things happen."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        """Record an event."""
        self.events.append(event)

    def by_key(self) -> dict[str, KeyHistory]:
        """Sort the events out.

        Raises:
            KeyError: an event of a push or connection that never began.
        """
        gathered = _Gathered()
        for event in self.events:
            gathered.take(event)
        for history in gathered.keys.values():
            _note_sightings(history)
        return gathered.keys

    def faults(self) -> list[Fault]:
        """The fault windows, by time."""
        return sorted((e for e in self.events if isinstance(e, Fault)), key=lambda fault: fault.t)

    def times(self) -> list[Time]:
        """The answers of /1/time/get."""
        return [e for e in self.events if isinstance(e, Time)]


class _KeyHistories(defaultdict[str, KeyHistory]):
    def __missing__(self, key: str) -> KeyHistory:
        self[key] = KeyHistory(key)
        return self[key]


class _Gathered:
    def __init__(self) -> None:
        self.keys = _KeyHistories()
        self._pushes: dict[str, Push] = {}
        self._sessions: dict[str, Session] = {}

    def take(self, event: Event) -> None:
        match event:
            case Push():
                assert event.uid not in self._pushes, f"uid {event.uid} was pushed twice"
                self._pushes[event.uid] = event
                for key in event.keys:
                    self.keys[key].stories[event.uid] = Story(event.uid, event.t, event.expire_s)
            case Ack():
                self._take_ack(event)
            case Sub():
                session = Session(event.conn, event.t, event.resume)
                assert event.conn not in self._sessions, f"connection {event.conn} began twice"
                self._sessions[event.conn] = session
                self.keys[event.key].sessions.append(session)
            case Open():
                self._sessions[event.conn].opened = event.t
            case Live():
                self._sessions[event.conn].live.append(event)
            case Gap():
                self._sessions[event.conn].gaps.append(event)
            case Close():
                self._sessions[event.conn].closed = event.t
            case Fetch():
                self.keys[event.key].fetches.append(event)
            case Delete():
                self.keys[event.key].deletes.append(event)
            case Unknown() | Time() | Fault():
                pass

    def _take_ack(self, ack: Ack) -> None:
        for key in self._pushes[ack.uid].keys:
            story = self.keys[key].stories[ack.uid]
            if ack.ret in (PARAMETER, NO_NODE):
                story.is_refused = True
            elif ack.ret == OK and key not in ack.failed_keys:
                story.acked = ack.t
        for key, mid in ack.mids:
            self.keys[key].told.append((ack.t, mid, ack.uid))


def _note_sightings(history: KeyHistory) -> None:
    for _, mid, uid in history.told:
        history.stories[uid].mid = mid
    for t, mid, uid in history.sightings():
        story = history.stories.get(uid)
        if story is None:
            continue
        if story.seen is None or t < story.seen:
            story.seen = t
        if story.mid is None:
            story.mid = mid
