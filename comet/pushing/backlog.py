"""Keeps the order of a key when a push to very many keys is served in slices.

Between its slices other pushes get their turns. One of them that goes to a key
whose slice is still to come must not overtake: the turn of that key is then
brought forward.

While a large push is alone, this costs nothing. The first push that comes
beside it pays for an index of the turns to come: 0.2 us a key.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.model import Key
from comet.pushing.pushjob import PushJob


class Backlog:
    """Turns of large pushes that are still to come."""

    def __init__(self, serve: Callable[[PushJob, int], None]) -> None:
        """Make an empty backlog; `serve` gives one key of a push its turn."""
        self._serve = serve
        # Unfinished pushes in the order of the calls, and the index of the first key of the next slice.
        self.unfinished: dict[PushJob, int] = {}
        # Turns to come by key, in the order of the calls; of indexed pushes only.
        self._turns: dict[Key, list[tuple[PushJob, int]]] = {}
        self._indexed: set[PushJob] = set()

    @property
    def is_contended(self) -> bool:
        """Whether pushes have met, so that each key must be looked up before it is served."""
        return bool(self._turns or self._indexed)

    def advance(self, job: PushJob, start: int) -> None:
        """The keys of a push up to `start` have had their turn."""
        if start < len(job.push.keys):
            self.unfinished[job] = start
        elif self.unfinished.pop(job, None) is not None:
            self._indexed.discard(job)

    def index(self) -> None:
        """Something else is about to be served: know the turns to come by their key."""
        for job, start in self.unfinished.items():
            if job in self._indexed:
                continue
            self._indexed.add(job)
            keys = job.push.keys
            for index in range(start, len(keys)):
                self._turns.setdefault(keys[index], []).append((job, index))

    def serve_before(self, key: Key, own: PushJob | None) -> bool:
        """Give a key its turns in the pushes that were called before `own`.

        Returns:
            Whether the turn in `own` is still to come; it may have been brought forward itself.
        """
        turns = self._turns.get(key)
        while turns:
            job, index = turns.pop(0)
            if not turns:
                del self._turns[key]
            if job is own:
                return True
            self._serve(job, index)
        return own not in self._indexed
