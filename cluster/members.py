"""The membership of the moment, kept up to date from a registry."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from cluster.errors import UnavailableError
from cluster.membership import Membership, weights_of
from cluster.registry.base import Registry, Snapshot
from cluster.registry.watchers import Watchers
from cluster.ring import Ring, point_count

log = logging.getLogger(__name__)

# A ring of so many points is built where its snapshot is taken, in 3 ms at the most. Larger
# ones are built in a thread.
MAX_POINTS_ON_LOOP = 1600

# Snapshots that wait for their rings. Of more than these only the latest counts: a registry
# that changes faster than rings can be built must not fill the memory.
MAX_WAITING = 16

NOT_TAKEN = "the newest membership cannot be taken"


class Members:
    """Follows a registry.

    Each snapshot is built once, and they follow each other in their order; while
    a large ring is built in a thread, the last membership stays. It also stays
    when nothing can be made of a snapshot, which would be a bug; the next one counts.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._watchers: Watchers[Membership] = Watchers()
        # Read it once per decision: the next read may give another one. Plain, because every push asks.
        self.current = Membership(Snapshot(epoch=(0, 0), nodes=()))
        # Snapshots whose turn is to come, numbered in their order; the first is being built.
        self._waiting: deque[tuple[int, Snapshot]] = deque()
        # Number of the snapshot that came last, and of the one behind `current`.
        self._last = 0
        self._taken = 0
        # Of refresh(), by the number that they wait for.
        self._refreshes: list[tuple[int, asyncio.Future[None]]] = []
        # The registry has told who is there, for the first time.
        self._is_known = asyncio.Event()
        self._is_closed = False
        self._unwatch = registry.watch(self._take)

    def watch(self, take: Callable[[Membership], None]) -> Callable[[], None]:
        """Call with the present membership now, and with each later one.

        Ordering: those who watch are told in the order in which they came.

        Returns:
            A function that ends the watch; may be called more than once.
        """
        end = self._watchers.add(take)
        take(self.current)
        return end

    async def wait_known(self) -> None:
        """Return when `current` is what the registry has told; before, nobody seems to be there.

        Waits for a registry that is away, for as long as it takes. Cancelling is safe.
        """
        await self._is_known.wait()

    async def refresh(self) -> None:
        """Return when `current` shows everything that stood in the registry at the call.

        Bound it with a timeout. Cancelling is safe.

        Raises:
            UnavailableError: the registry is away, or nothing could be made of what it told.
        """
        await self._registry.refresh()
        if self._is_closed or self._taken == self._last:
            return
        if not self._waiting:
            raise UnavailableError(NOT_TAKEN)
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshes.append((self._last, taken))
        await taken

    def close(self) -> None:
        """Stop following the registry."""
        self._is_closed = True
        self._unwatch()
        self._waiting.clear()
        self._answer_refreshes(self._last)

    def _take(self, snapshot: Snapshot) -> None:
        self._last += 1
        self._waiting.append((self._last, snapshot))
        if len(self._waiting) == 1:
            self._go()
        elif len(self._waiting) > MAX_WAITING:
            # The first is in a thread.
            self._waiting = deque([self._waiting[0], self._waiting[-1]])

    def _go(self) -> None:
        """Take what waits, up to the first large ring."""
        while self._waiting:
            number, snapshot = self._waiting[0]
            try:
                ring = self._ready_ring(snapshot)
                if ring is None:
                    building = asyncio.get_running_loop().run_in_executor(None, Membership, snapshot)
                    building.add_done_callback(self._take_built)
                    return
                membership = Membership(snapshot, ring)
            except Exception as error:
                self._pass_over(error)
            else:
                self._set(number, membership)

    def _ready_ring(self, snapshot: Snapshot) -> Ring | None:
        """The present ring when the nodes are the same, a new one when it is small."""
        weights = weights_of(snapshot)
        ring = self.current.ring
        if weights == ring.weights:
            return ring
        return Ring(weights) if point_count(weights) <= MAX_POINTS_ON_LOOP else None

    def _take_built(self, building: asyncio.Future[Membership]) -> None:
        if self._is_closed or building.cancelled():
            return
        error = building.exception()
        if error is not None:
            self._pass_over(error)
        else:
            self._set(self._waiting[0][0], building.result())
        self._go()

    def _pass_over(self, error: BaseException) -> None:
        """Nothing can be made of the first that waits. Building it again would end the same."""
        number, snapshot = self._waiting.popleft()
        log.error(
            "a membership cannot be taken, the last one stays: epoch=%s", snapshot.epoch, exc_info=error
        )
        self._answer_refreshes(number, UnavailableError(NOT_TAKEN))

    def _set(self, number: int, membership: Membership) -> None:
        """Make it the current one; those who watch may bring about the next, which waits meanwhile."""
        self._taken = number
        self.current = membership
        self._is_known.set()
        self._watchers.tell(membership)
        self._waiting.popleft()
        self._answer_refreshes(number)

    def _answer_refreshes(self, number: int, error: UnavailableError | None = None) -> None:
        refreshes, self._refreshes = self._refreshes, []
        for wanted, taken in refreshes:
            if wanted > number:
                self._refreshes.append((wanted, taken))
            elif taken.done():
                continue
            elif error is not None:
                taken.set_exception(error)
            else:
                taken.set_result(None)
