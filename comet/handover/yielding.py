"""What is left of keys that this node has lost: connections that wait to be closed, saves that are under way.

The new owner forwards what it delivers for them, and asks when nothing is left.
Implements HandoverService.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from cluster.contracts.handover import Forward, Held
from cluster.errors import OverloadedError, UnavailableError
from cluster.members import Members
from cluster.model import Epoch, Key
from comet.handover.moving import Mover
from comet.metrics import CometMetrics
from comet.ownership.epochs import EpochGate
from comet.ownership.ownership import Ownership
from comet.pushing.deleting import Deleter
from comet.pushing.push import Pusher
from comet.pushing.turns import ExclusiveTurn
from comet.subscribers.filling import Filler
from comet.subscribers.hub import Hub
from comet.subscribers.outgoing import Outgoing

# An answer waits so long to become the one that is hoped for. Less than callers wait for it.
SAVING_WAIT_S = 0.5
RELEASE_WAIT_S = 1.0
# Keys in one answer.
MAX_SAVING = 10_000

NO_NEWS = "this node has not heard of that membership yet"


class Yielding:
    """An earlier owner, as the new owners see it."""

    def __init__(
        self,
        members: Members,
        epochs: EpochGate,
        ownership: Ownership,
        hub: Hub,
        pusher: Pusher,
        mover: Mover,
        filler: Filler,
        deleter: Deleter,
        metrics: CometMetrics,
    ) -> None:
        """Put together what it answers from."""
        self._members = members
        self._epochs = epochs
        self._ownership = ownership
        self._hub = hub
        self._pusher = pusher
        self._mover = mover
        self._filler = filler
        self._metrics = metrics
        self._deleter = deleter

    def forward(self, message: Forward) -> asyncio.Future[Held]:
        """See HandoverService.forward()."""
        key = message.key
        if not self._pusher.is_busy(key) and not self._has_hole(message):
            self._deliver(message)
            return self._answer(key)
        return self._at_turn(key, partial(self._fill_and_deliver, message))

    def close_key(self, key: Key) -> asyncio.Future[Held]:
        """See HandoverService.close_key()."""
        return self._at_turn(key, partial(self._deleter.close_key, key))

    async def still_saving(self, epoch: Epoch) -> list[Key]:
        """See HandoverService.still_saving()."""
        if not await self._epochs.wait(epoch):
            raise UnavailableError(NO_NEWS)
        owns = self._ownership.owns
        saving = {key for key in self._pusher.busy_keys() if not owns(key)}
        if len(saving) > MAX_SAVING:
            raise OverloadedError("too much is in progress")
        if saving:
            await self._wait_turns(saving)
        return list(saving)

    async def release(self, epoch: Epoch) -> bool:
        """See HandoverService.release()."""
        if not await self._epochs.wait(epoch):
            raise UnavailableError(NO_NEWS)
        return await self._mover.wait_idle(RELEASE_WAIT_S)

    async def _wait_turns(self, keys: set[Key]) -> None:
        """Wait until what these keys have in progress is done, taking out those that are."""
        all_done = asyncio.Event()

        def done(key: Key) -> None:
            keys.discard(key)
            if not keys:
                all_done.set()

        for key in list(keys):
            self._pusher.at_turn(key, partial(done, key))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAVING_WAIT_S):
                await all_done.wait()

    def _has_hole(self, message: Forward) -> bool:
        channel = self._hub.channel(message.key)
        if channel is None or message.mid <= channel.cursor:
            return False
        return message.prev > channel.cursor or message.key in self._hub.doubtful

    def _deliver(self, message: Forward) -> None:
        channel = self._hub.channel(message.key)
        if channel is None:
            return
        if message.mid > channel.cursor:
            outgoing = Outgoing(message.mid, message.payload, message.is_stored)
            self._metrics.deliveries.value += channel.deliver(outgoing)
        elif not message.is_stored:
            self._metrics.drops.inc("late", len(channel))

    async def _fill_and_deliver(self, message: Forward) -> None:
        if self._has_hole(message) and await self._filler.fill_or_close(message.key, message.mid):
            self._hub.doubtful.discard(message.key)
        self._deliver(message)

    def _at_turn(self, key: Key, turn: ExclusiveTurn) -> asyncio.Future[Held]:
        """Answer after a turn of the key."""
        answer: asyncio.Future[Held] = asyncio.get_running_loop().create_future()

        def pass_on(done: asyncio.Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(self._held(key))

        try:
            self._pusher.begin_exclusive(key, turn).add_done_callback(pass_on)
        except UnavailableError as error:
            answer.set_exception(error)
        return answer

    def _answer(self, key: Key) -> asyncio.Future[Held]:
        answer: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        answer.set_result(self._held(key))
        return answer

    def _held(self, key: Key) -> Held:
        channel = self._hub.channel(key)
        # By its own view: one that it has lost it takes no new connections of.
        epoch = self._members.current.epoch
        return Held(epoch, 0 if channel is None else len(channel))
