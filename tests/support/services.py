"""Doubles of the services behind a web node, for what real ones do only by accident."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from cluster.contracts.comet import CometStatus, ConnectionInfo, Failure, Push, PushReply
from cluster.contracts.message import Away, Guarantee, MessageStatus, Page, Stored
from cluster.errors import EnckeError, NotOwnerError
from cluster.model import Epoch, Key, Mid

# What becomes of a push: an answer, an error, or silence (None).
Fate = Callable[[Push], PushReply] | EnckeError | None


def accepted(push: Push) -> PushReply:
    """Every key done, with mids 80, 160, ..."""
    size = len(push.keys)
    return PushReply([Mid(80 * (i + 1)) for i in range(size)], [1] * size, [], [])


def failing(codes: dict[str, str]) -> Callable[[Push], PushReply]:
    """Some keys fail, with these codes."""

    def answer(push: Push) -> PushReply:
        reply = accepted(push)
        for i, key in enumerate(push.keys):
            if key in codes:
                reply.mids[i] = Mid(0)
                reply.failed.append(Failure(i, codes[key]))
        return reply

    return answer


class ScriptedComet:
    """A comet node that does with each call what the test has arranged, and else what was asked."""

    def __init__(self) -> None:
        # In order of the calls.
        self.pushes: list[Push] = []
        self.deleted: list[Key] = []
        # Of the next pushes; afterwards all are accepted.
        self.fates: deque[Fate] = deque()
        # Answers come when this is called, instead of at once.
        self.is_holding = False
        self._held: deque[tuple[asyncio.Future[PushReply], Push, Fate]] = deque()
        # Of the next deletions.
        self.refusals: deque[EnckeError] = deque()
        # Nothing but pushes is ever answered.
        self.is_silent = False
        # What it tells of itself.
        self.name = ""
        self.fault: str | None = None

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        self.pushes.append(push)
        fate = self.fates.popleft() if self.fates else accepted
        future: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
        if self.is_holding:
            self._held.append((future, push, fate))
        else:
            _decide(future, push, fate)
        return future

    def release(self, count: int = 1) -> None:
        """Answer the oldest held pushes."""
        for _ in range(count):
            _decide(*self._held.popleft())

    @property
    def held_count(self) -> int:
        """Pushes that were not answered."""
        return len(self._held)

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        if self.refusals:
            raise self.refusals.popleft()
        if self.is_silent:
            await _never()
        self.deleted.append(key)
        return 3

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        return []

    async def status(self) -> CometStatus:
        if self.is_silent:
            await _never()
        return CometStatus(
            connections=7, channels=5, capacity=100, pushes=9, name=self.name, fault=self.fault
        )


class SilentStore:
    """A store that answers nothing."""

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        await _never()

    async def inspect(self, key: Key) -> Stored:
        await _never()

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        await _never()

    async def clock(self) -> Mid:
        await _never()

    async def is_fenced(self, incarnation: str) -> bool:
        await _never()


GUARANTEE = Guarantee(
    "redis",
    "redis://10.0.0.9:6379/0",
    "none",
    "much may be lost",
    "mend it",
    Away(34.2, "Connection refused"),
)


class ScriptedMessageNode:
    """A message node that says the same of itself each time."""

    async def status(self) -> MessageStatus:
        return MessageStatus([GUARANTEE], connections=3, saved=4)


async def _never() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def not_owner() -> NotOwnerError:
    """What a node says of keys that are another's."""
    return NotOwnerError("another node owns the key")


def _decide(future: asyncio.Future[PushReply], push: Push, fate: Fate) -> None:
    if future.done() or fate is None:
        return
    if isinstance(fate, EnckeError):
        future.set_exception(fate)
    else:
        future.set_result(fate(push))
