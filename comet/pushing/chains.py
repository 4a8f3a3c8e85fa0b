"""Keeps the order of pushes that were sent behind each other without waiting: lines of a push stream.

Such a push names the one before it to the same key (Push.follows). It may only be done
if that one was taken here before it and has not failed since: else its caller may try that
one again, and the two would be swapped. So it is refused, and its caller
sends it again when it knows what became of the other.

A node remembers what it has taken, not what it has refused: a push that got lost on its
way here was never refused.
"""

from __future__ import annotations

from collections import OrderedDict

from cluster.model import Key
from comet.pushing.pushjob import Chain, PushJob

# So many last pushes are remembered in any case: of streams whose nodes or stores are slow. A stream
# has at most as many lines on their way as its window holds (web.stream_window).
KEPT_ENDS = 10_000
# Beyond that those of so many seconds: where nothing is slow, what may still be followed is younger.
KEPT_S = 1.0
# But not more. What is forgotten too early is only sent again, but then one after the other.
MAX_ENDS = 100_000


class Chains:
    """The pushes of a node that others may follow."""

    def __init__(self, kept_ends: int = KEPT_ENDS, max_ends: int = MAX_ENDS) -> None:
        """Nothing was taken yet."""
        self._kept_ends = kept_ends
        self._max_ends = max_ends
        # By the key and the id of the last push of each chain; the oldest first. Most are never followed, so
        # each new one pushes out the oldest: to find that at the front of a dict takes 2 us.
        self._ends: OrderedDict[tuple[Key, str], Chain] = OrderedDict()

    def link(self, job: PushJob) -> None:
        """Note that a push is taken that others may follow, and what it follows itself.

        Args:
            job: of a push with Push.follows; it must not have had a turn.
        """
        push = job.push
        assert push.follows is not None
        ends = self._ends
        job.chains = []
        for key, earlier in zip(push.keys, push.follows, strict=True):
            chain = ends.pop((key, earlier), None) if earlier else Chain()
            if chain is None:
                chain = Chain(is_broken=True)
            chain.taken_at = job.started_at
            job.chains.append(chain)
            if not chain.is_broken:
                ends[key, push.push_id] = chain
        if len(ends) > self._kept_ends:
            self._forget(len(push.keys), job.started_at)

    def _forget(self, added: int, now: float) -> None:
        """Forget the oldest, after so many were added: no more than twice as many, which takes no time."""
        ends = self._ends
        for _ in range(2 * added):
            if len(ends) <= self._kept_ends:
                return
            if len(ends) <= self._max_ends and now - next(iter(ends.values())).taken_at < KEPT_S:
                return
            ends.popitem(last=False)
