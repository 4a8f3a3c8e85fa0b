"""Forwards what is delivered for gained keys to nodes that may still hold connections of them.

A node that has lost keys closes their connections at a pace, so that they do
not come back all at once. Until then its subscribers are served from here, in
the order of the key's queue. A forward that fails fails no push: what is stored
is read by the subscriber when it resumes, or by its node with the next forward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from cluster.contracts.handover import Forward, HandoverService, Held
from cluster.mids import STEP
from cluster.model import Epoch, Key, Mid, NodeInfo
from comet.metrics import CometMetrics
from comet.ownership.interval import Interval

# Of one earlier owner: what it has not answered yet, and keys that it has said to have no
# connections of. Over the first two nothing is forwarded to it, over the last more than need be.
MAX_IN_FLIGHT = 4096
MAX_IN_FLIGHT_BYTES = 16 * 1024 * 1024
MAX_FREE_KEYS = 200_000

# Keys of which is remembered what was forwarded last.
MAX_TRAILS = 200_000


class EarlierOwner:
    """An instance that owned keys under a recent membership, and what it has said under the present one."""

    __slots__ = ("bytes_in_flight", "free_keys", "in_flight", "instance", "is_released", "saving", "service")

    def __init__(self, instance: str, service: HandoverService) -> None:
        self.instance = instance
        self.service = service
        # It holds no connection of any lost key, or has ended.
        self.is_released = False
        # Lost keys that it may still save for; None = it has not said which.
        self.saving: set[Key] | None = None
        self.free_keys: set[Key] = set()
        self.in_flight = 0
        self.bytes_in_flight = 0

    def may_save(self, key: Key) -> bool:
        """Whether something of a key may still be stored through it."""
        return self.saving is None or key in self.saving


class _Trail:
    """What was forwarded of a key: the highest mid, and the highest that is stored."""

    __slots__ = ("epoch", "last", "stored")

    def __init__(self) -> None:
        # The membership under which `stored` was learned: under another one, others may have
        # stored for the key since.
        self.epoch: Epoch | None = None
        self.last = Mid(0)
        self.stored = Mid(0)


class Forwarder:
    """The earlier owners of the keys that this node has gained."""

    def __init__(self, is_own: Callable[[NodeInfo], bool], metrics: CometMetrics) -> None:
        """Make one without earlier owners.

        Args:
            is_own: whether an entry is this instance's.
        """
        # Keys have earlier owners that are not done. Plain: every delivery asks.
        self.is_active = False
        self._is_own = is_own
        self._metrics = metrics
        self._epoch: Epoch = (0, 0)
        self._intervals: Sequence[Interval] = ()
        self._owners: dict[str, EarlierOwner] = {}
        # Every earlier owner is done with saving, and what it has saved was read.
        self._is_all_read = True
        # Keys of which that is so already.
        self.read_keys: set[Key] = set()
        self._trails: dict[Key, _Trail] = {}

    def begin(self, epoch: Epoch, intervals: Sequence[Interval], owners: dict[str, EarlierOwner]) -> None:
        """Forward from now on; replaces what was before.

        Args:
            epoch: of the present membership.
            intervals: the recent ones, oldest first.
            owners: by instance, those that serve in one of them, or may have, without this one.
        """
        self._epoch = epoch
        self._intervals = intervals
        self._owners = owners
        self._is_all_read = False
        self.read_keys = set()
        self.is_active = bool(owners)

    def end_reading(self) -> None:
        """No earlier owner will save any more, and what it has saved was read."""
        self._is_all_read = True
        self.read_keys = set()

    def end(self) -> None:
        """No key has an earlier owner any more."""
        self.is_active = False
        self._intervals = ()
        self._owners = {}
        self._trails = {}

    @property
    def holding_count(self) -> int:
        """Earlier owners that may still hold connections of gained keys."""
        return sum(not owner.is_released for owner in self._owners.values())

    def earlier_owners(self, key: Key) -> list[EarlierOwner]:
        """Who owned a key in the recent intervals, or may have, without this node."""
        found: dict[str, EarlierOwner] = {}
        for interval in self._intervals:
            for node in interval.owners(key):
                owner = self._owners.get(node.instance)
                if owner is not None and not self._is_own(node):
                    found[node.instance] = owner
        return list(found.values())

    def must_read(self, key: Key) -> bool:
        """Whether an earlier owner may have saved for a key what was not read here."""
        if self._is_all_read or key in self.read_keys:
            return False
        return bool(self.earlier_owners(key))

    def forward(self, key: Key, mid: Mid, payload: bytes, is_stored: bool, prev: Mid | None) -> None:
        """Forward a message whose mid the store has settled.

        Ordering: called at the key's turn, so that they arrive in the order of their mids.

        Args:
            prev: highest mid below that is stored for the key; None = of a repeat it is not known.
        """
        owners = self._holders(key)
        if not owners:
            return
        trail = self._trail(key)
        if trail is not None:
            # A repeat has an earlier one's.
            trail.last = max(trail.last, mid)
            trail.stored = max(trail.stored, mid if is_stored else prev or Mid(0))
            if prev is not None:
                trail.epoch = self._epoch
        self._send(owners, Forward(key, mid, payload, is_stored, _unknown(mid) if prev is None else prev))

    def forward_unsaved(self, key: Key, mid: Mid, payload: bytes) -> None:
        """Forward a message that is not stored; see forward()."""
        owners = self._holders(key)
        if not owners:
            return
        trail = self._trail(key)
        if trail is None:
            self._metrics.forwards.inc("dropped", len(owners))
            return
        # Without a connection here nothing else makes them increase.
        mid = trail.last = max(mid, Mid(trail.last + STEP))
        # Of a single earlier owner nothing is missing that was not forwarded from here. One of
        # several may have stored what it could not forward to another.
        is_single = len(self._intervals) == 1 and self._intervals[0].is_whole
        is_known = is_single or trail.epoch == self._epoch
        self._send(owners, Forward(key, mid, payload, False, trail.stored if is_known else _unknown(mid)))

    async def close_key(self, key: Key, timeout_s: float) -> None:
        """Have the connections of a deleted key closed elsewhere, too; bounded by the timeout."""
        closing = [owner.service.close_key(key) for owner in self._holders(key)]
        if closing:
            await asyncio.wait(closing, timeout=timeout_s)
            for one in closing:
                one.add_done_callback(_retrieve)
                one.cancel()

    def _holders(self, key: Key) -> list[EarlierOwner]:
        return [
            owner
            for owner in self.earlier_owners(key)
            if not owner.is_released and key not in owner.free_keys
        ]

    def _trail(self, key: Key) -> _Trail | None:
        trail = self._trails.get(key)
        if trail is None and len(self._trails) < MAX_TRAILS:
            trail = self._trails[key] = _Trail()
        return trail

    def _send(self, owners: list[EarlierOwner], message: Forward) -> None:
        size = len(message.payload)
        for owner in owners:
            is_full = owner.in_flight >= MAX_IN_FLIGHT or owner.bytes_in_flight >= MAX_IN_FLIGHT_BYTES
            if is_full:
                self._metrics.forwards.inc("dropped")
                continue
            owner.in_flight += 1
            owner.bytes_in_flight += size
            answer = owner.service.forward(message)
            answer.add_done_callback(partial(self._on_answer, owner, message.key, size))

    def _on_answer(self, owner: EarlierOwner, key: Key, size: int, answer: asyncio.Future[Held]) -> None:
        owner.in_flight -= 1
        owner.bytes_in_flight -= size
        if answer.cancelled() or answer.exception() is not None:
            self._metrics.forwards.inc("failed")
            return
        held = answer.result()
        self._metrics.forwards.inc("ok")
        is_final = held.epoch >= self._epoch and self._owners.get(owner.instance) is owner
        if not held.connections and is_final and len(owner.free_keys) < MAX_FREE_KEYS:
            owner.free_keys.add(key)


def _unknown(mid: Mid) -> Mid:
    """As `prev` of a message: whoever has not delivered all below that reads the store first."""
    return Mid(mid - STEP)


def _retrieve(answer: asyncio.Future[Held]) -> None:
    # Else asyncio reports the error of a future that nobody asked.
    if not answer.cancelled():
        answer.exception()
