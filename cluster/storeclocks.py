"""Lower bounds of the clocks of all store servers, kept by a node that only hears of them.

The servers' clocks differ, and mids follow the clock of the server that holds
their key. So each server has a bound of its own: under one that is ahead, a
message that is not stored would get a mid above those that a slower server
settles next, and deadlines would come too late there; under one that is
behind, it would get a mid below those that its subscribers have seen, and a
faster server would refuse every save as late. The lowest of all would do only
for the first half of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.mids import STEP
from cluster.model import Key, Mid, StoreServer
from cluster.storering import StoreRing


class StoreClocks:
    """A StoreClock per server. With a single one no key is hashed."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        """Know nothing; until take() all keys are on one server."""
        self._monotonic_ns = monotonic_ns
        self._weights: dict[str, int] = {}
        self._clocks: dict[str, StoreClock] = {}
        # The only server's.
        self._sole: StoreClock | None = StoreClock(monotonic_ns)
        self._ring: StoreRing | None = None

    @property
    def is_known(self) -> bool:
        """Whether any server's clock is known; before that now() means nothing."""
        if self._sole is not None:
            return self._sole.is_known
        return any(clock.is_known for clock in self._clocks.values())

    @property
    def has_several(self) -> bool:
        """Whether there is more than one server."""
        return self._sole is None

    def take(self, servers: Sequence[StoreServer], asked_at_ns: int) -> None:
        """Take the list of all servers; see StoreClock.hear()."""
        weights = {server.name: server.weight for server in servers}
        if weights != self._weights and weights:
            self._weights = weights
            old = self._clocks
            self._clocks = {name: old.get(name) or StoreClock(self._monotonic_ns) for name in weights}
            self._sole = next(iter(self._clocks.values())) if len(weights) == 1 else None
            self._ring = StoreRing(weights) if len(weights) > 1 else None
        for server in servers:
            if server.clock:
                self._clocks[server.name].hear(server.clock, asked_at_ns)

    def hear(self, key: Key, clock: Mid, asked_at_ns: int) -> None:
        """Take the clock of an answer about a key; see StoreClock.hear()."""
        (self._sole or self._of(key)).hear(clock, asked_at_ns)

    def now(self, key: Key) -> Mid:
        """The bound for a key. While its server has never answered: the lowest of the others."""
        if self._sole is not None:
            # Every subscription and push asks.
            return self._sole.now()
        clock = self._of(key)
        return clock.now() if clock.is_known else self.lowest()

    def lowest(self) -> Mid:
        """A bound that holds for every key whose server's clock is known."""
        if self._sole is not None:
            return self._sole.now()
        return min((clock.now() for clock in self._clocks.values() if clock.is_known), default=Mid(0))

    def _of(self, key: Key) -> StoreClock:
        if self._ring is None:
            assert self._sole is not None
            return self._sole
        return self._clocks[self._ring.server_of(key)]


class StoreClock:
    """Lower bound of the store's clock, kept by a node that only hears of it.

    Every answer of a message node carries its store's clock; until the next
    one the bound advances with the local monotonic clock, so a wrong wall
    clock of this node does not enter.
    """

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._heard: Mid = Mid(0)
        self._heard_at_ns = monotonic_ns()

    @property
    def is_known(self) -> bool:
        """Whether any answer has arrived yet; before that now() means nothing."""
        return self._heard > 0

    def hear(self, clock: Mid, asked_at_ns: int) -> None:
        """Take the store's clock from an answer that has just arrived.

        An answer that was slow (a commit that took long) does not take the
        bound back: below a mid that was sent, a message would be taken for one
        that its subscriber has seen. A clock that has been set back does.

        Args:
            asked_at_ns: monotonic time of the question; the store read its clock after that.
        """
        if clock == self._heard and asked_at_ns <= self._heard_at_ns:
            # Of the same commit, as most answers are when many wait.
            return
        heard_at_ns, now_ns = self._heard_at_ns, self._monotonic_ns()
        bound_when_asked = self._heard + (asked_at_ns - heard_at_ns) // 100
        # What now() would say, without asking for the time once more.
        ticks = self._heard + (now_ns - heard_at_ns) // 100
        if bound_when_asked <= clock < ticks - ticks % STEP:
            return
        self._heard = clock
        self._heard_at_ns = now_ns

    def now(self) -> Mid:
        """The bound at this moment, a multiple of STEP."""
        ticks = self._heard + (self._monotonic_ns() - self._heard_at_ns) // 100
        # Not Mid(...): every push and subscription comes here, and it is a call in Python, 0.1 us.
        return ticks - ticks % STEP  # type: ignore[return-value]
