"""Takes over gained keys from their earlier owners: asks each what is left, reads the store once more.

A key is served from the moment at which the membership gives it. What its
earlier owner had accepted before may be saved after that, and a subscriber that
is here already would not hear of it before the next push. So when that one says
that nothing is in progress any more, or has been fenced, the key is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cluster.contracts.handover import HandoverService
from cluster.errors import EnckeError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import Key, NodeInfo, NodeKind
from comet.metrics import CometMetrics
from comet.ownership.interval import Interval
from comet.pushing.forwarding import EarlierOwner, Forwarder
from comet.pushing.push import Pusher
from comet.subscribers.filling import Filler
from comet.subscribers.hub import Hub

log = logging.getLogger(__name__)

# Intervals whose owners may still hold connections. Of more the oldest are forgotten: their
# subscribers are closed by and by, and resume.
MAX_INTERVALS = 8

FIRST_PAUSE_S = 0.02
LAST_PAUSE_S = 1.0

# An owner that has gone is fenced by the message nodes within moments. Where none of them has
# seen it stand, nobody does.
FENCE_PATIENCE_S = 30.0

# Keys looked up before other work of the loop, and keys read at a time.
SCAN_SLICE = 128
READS_AT_ONCE = 16


class Succession:
    """Owns the task that asks the earlier owners of the present membership."""

    def __init__(
        self,
        members: Members,
        forwarder: Forwarder,
        hub: Hub,
        pusher: Pusher,
        filler: Filler,
        metrics: CometMetrics,
        *,
        peers: Callable[[NodeInfo], HandoverService],
        is_fenced: Callable[[str], Awaitable[bool]],
        is_own: Callable[[NodeInfo], bool],
    ) -> None:
        """Follow nothing yet.

        Args:
            peers: the service of an instance.
            is_fenced: MessageService.is_fenced.
            is_own: whether an entry is this instance's.
        """
        self._members = members
        self._forwarder = forwarder
        self._peers = peers
        self._is_fenced = is_fenced
        self._is_own = is_own
        self._hub = hub
        self._pusher = pusher
        self._filler = filler
        self._metrics = metrics
        self._current: Membership | None = None
        # Oldest first, those whose owners are not all done.
        self._intervals: list[Interval] = []
        self._owners: dict[str, EarlierOwner] = {}
        # An earlier owner has said something.
        self._news = asyncio.Event()
        # The last, and those before it that are being cancelled.
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def start(self) -> None:
        """Follow from the present membership on: what this node gains, it gains from its owners."""
        self._current = self._members.current

    def take(self, membership: Membership) -> None:
        """The membership has changed."""
        previous = self._current
        if previous is None or self._is_stopped:
            return
        self._current = membership
        if previous.serving_nodes == membership.serving_nodes:
            return
        self._intervals = [*self._intervals, Interval(previous, membership)][-MAX_INTERVALS:]
        nodes = {
            node.instance: node
            for interval in self._intervals
            for node in interval.nodes
            if not self._is_own(node)
        }
        if self._task is not None:
            self._task.cancel()
        self._owners = {
            instance: EarlierOwner(instance, self._peers(node)) for instance, node in nodes.items()
        }
        for owner in self._owners.values():
            owner.is_released = not self._is_listed(owner)
        self._forwarder.begin(membership.epoch, self._intervals, self._owners)
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._succeed(membership), name="succession")
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Ask no more. May be called more than once, and without start()."""
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _succeed(self, membership: Membership) -> None:
        """Ask every earlier owner until it is done; another membership cancels this."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_again())
                for owner in self._owners.values():
                    tasks.create_task(self._follow(owner, membership))
        except Exception:
            # A fault of ours: the node serves on, and forwards until the next change.
            log.exception("earlier owners are not asked any more")
            return
        self._intervals = []
        self._owners = {}
        self._forwarder.end()

    # -- what the earlier owners say

    async def _follow(self, owner: EarlierOwner, membership: Membership) -> None:
        pause_s = FIRST_PAUSE_S
        while not owner.is_released or owner.saving is None or owner.saving:
            if not self._is_listed(owner):
                owner.is_released = True
                await self._wait_fenced(owner)
                owner.saving = set()
                self._news.set()
                return
            try:
                is_news = await self._ask(owner, membership)
            except EnckeError as error:
                log.debug("an earlier owner does not answer: node=%s reason=%s", owner.instance, error)
                is_news = False
            if is_news:
                pause_s = FIRST_PAUSE_S
                continue
            # One that drains does not wait before it says no.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _ask(self, owner: EarlierOwner, membership: Membership) -> bool:
        """Ask for the next that is outstanding; False when there is nothing new."""
        if owner.saving is None or owner.saving:
            owner.saving = set(await owner.service.still_saving(membership.epoch))
            self._news.set()
            return True
        owner.is_released = await owner.service.release(membership.epoch)
        return owner.is_released

    def _is_listed(self, owner: EarlierOwner) -> bool:
        return any(node.instance == owner.instance for node in self._members.current.of_kind(NodeKind.COMET))

    async def _wait_fenced(self, owner: EarlierOwner) -> None:
        """Wait until the store takes no save of one that has gone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + FENCE_PATIENCE_S
        pause_s = FIRST_PAUSE_S
        while loop.time() < end:
            try:
                if await self._is_fenced(owner.instance):
                    return
            except EnckeError as error:
                log.debug("no message node tells: reason=%s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
        log.warning("an earlier owner has gone and nobody has fenced it: node=%s", owner.instance)

    # -- the second read

    async def _read_again(self) -> None:
        """Read each connected key when all its earlier owners are done with it."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._news.clear()
            are_done = all(owner.saving == set() for owner in self._owners.values())
            is_all_read = await self._read_ready()
            if is_all_read and are_done:
                self._forwarder.end_reading()
                return
            if is_all_read:
                pause_s = FIRST_PAUSE_S
                await self._news.wait()
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _read_ready(self) -> bool:
        """Read what can be read by now; False when the store did not answer for some."""
        read = self._forwarder.read_keys
        is_all_read = True
        keys = self._hub.keys()
        for start in range(0, len(keys), SCAN_SLICE):
            ready = [key for key in keys[start : start + SCAN_SLICE] if self._is_ready(key)]
            for first in range(0, len(ready), READS_AT_ONCE):
                some = ready[first : first + READS_AT_ONCE]
                for key, is_read in zip(some, await asyncio.gather(*map(self._read, some)), strict=True):
                    if is_read:
                        read.add(key)
                    else:
                        is_all_read = False
            await asyncio.sleep(0)
        return is_all_read

    def _is_ready(self, key: Key) -> bool:
        if key in self._forwarder.read_keys:
            return False
        owners = self._forwarder.earlier_owners(key)
        return bool(owners) and not any(owner.may_save(key) for owner in owners)

    async def _read(self, key: Key) -> bool:
        try:
            await self._pusher.run_exclusive(key, lambda: self._filler.fill(key, None))
        except (EnckeError, TimeoutError) as error:
            log.debug("a gained key is read again later: key=%s reason=%r", key, error)
            return False
        self._metrics.second_reads.inc()
        return True
