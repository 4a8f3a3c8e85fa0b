"""Which pushes and deletions this node may carry out: those for keys that it owns, as far as it can know.

What comes under a newer membership waits for that one; what comes while the
node has reason to doubt its own registration waits until it is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from cluster.contracts.comet import Push, PushReply
from cluster.errors import NotOwnerError, UnavailableError
from cluster.model import Epoch, Key
from comet.ownership.epochs import EpochGate
from comet.ownership.ownership import Ownership
from comet.ownership.standing import Standing
from comet.pushing.push import Pusher

NO_NEWS = "this node has not heard of the newest membership yet"
UNSURE = "this node does not know whether it is still registered"


class Admission:
    """Stands before the pusher."""

    def __init__(
        self, ownership: Ownership, standing: Standing | None, epochs: EpochGate, pusher: Pusher
    ) -> None:
        """Let nothing in yet that is not owned.

        Args:
            standing: None = nobody but this process can take keys away.
        """
        self._ownership = ownership
        self._standing = standing
        self._epochs = epochs
        self._pusher = pusher

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push()."""
        if self._standing is not None and not self._standing.may_push_now():
            return self._push_when_sure(push, self._standing)
        return self._push_if_owned(push)

    def _push_if_owned(self, push: Push) -> asyncio.Future[PushReply]:
        holdings = self._ownership.holdings
        # In one process both are the same object.
        if push.epoch is not holdings.epoch and push.epoch > holdings.epoch:
            return self._push_later(push)
        if holdings.is_everything or self._ownership.owns_all(push.keys):
            return self._pusher.push(push)
        refused: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
        refused.set_exception(NotOwnerError("another node owns a key of this push"))
        return refused

    async def admit(self, key: Key, epoch: Epoch) -> None:
        """Wait until it is known who owns a key under a membership at least as new as `epoch`.

        Raises:
            NotOwnerError: another node.
            UnavailableError: it did not become known in time.
        """
        if self._standing is not None and not self._standing.is_sure():
            await self._standing.wait_sure()
        if not self._ownership.has_stopped and not await self._epochs.wait(epoch):
            raise UnavailableError(NO_NEWS)
        if not self._ownership.owns(key):
            raise NotOwnerError("another node owns this key")

    def _push_when_sure(self, push: Push, standing: Standing) -> asyncio.Future[PushReply]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[PushReply] = loop.create_future()
        deadline = loop.time() + push.timeout_s

        def go_on() -> None:
            if answer.done():
                return
            if self._ownership.has_stopped:
                answer.set_exception(NotOwnerError("this node has lost its keys"))
            elif deadline <= loop.time() or not standing.is_sure():
                answer.set_exception(UnavailableError(UNSURE))
            else:
                _push_by(self._push_if_owned, deadline, push, answer)

        if self._ownership.has_stopped:
            go_on()
        else:
            standing.when_sure(go_on)
        return answer

    def _push_later(self, push: Push) -> asyncio.Future[PushReply]:
        """Push, or refuse, under a membership at least as new as the caller's."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[PushReply] = loop.create_future()
        deadline = loop.time() + push.timeout_s

        def go_on(is_reached: bool) -> None:
            if answer.done():
                return
            if is_reached:
                _push_by(self.push, deadline, push, answer)
            else:
                answer.set_exception(UnavailableError(NO_NEWS))

        if self._ownership.has_stopped:
            answer.set_exception(NotOwnerError("this node has lost its keys"))
        else:
            self._epochs.when(push.epoch, push.timeout_s, go_on)
        return answer


def _push_by(
    carry_out: Callable[[Push], asyncio.Future[PushReply]],
    deadline: float,
    push: Push,
    answer: asyncio.Future[PushReply],
) -> None:
    """Push with what is left of the time until then: the caller does not wait longer."""
    time_left = max(0.0, deadline - asyncio.get_running_loop().time())
    later = msgspec.structs.replace(push, timeout_s=time_left)
    carry_out(later).add_done_callback(partial(_pass_on, answer))


def _pass_on(answer: asyncio.Future[PushReply], done: asyncio.Future[PushReply]) -> None:
    """Answer with the outcome of another future."""
    if done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is None:
        if not answer.done():
            answer.set_result(done.result())
    elif not answer.done():
        answer.set_exception(error)
