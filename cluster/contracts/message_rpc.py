"""MessageService over RPC: the method table, a stub for one message node, and one over many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from cluster.contracts.message import (
    MessageNodeService,
    MessageService,
    MessageStatus,
    Page,
    SaveBatch,
    SaveReply,
    Stored,
)
from cluster.errors import DeadlinePassedError, InDoubtError, OverloadedError, UnavailableError
from cluster.model import Key, Mid, StoreServer
from cluster.rpc.balancer import Balancer
from cluster.rpc.client import RpcClient
from cluster.rpc.methods import Method, Route

SERVICE = "message"

# The numbers are on the wire: they stay, and are not given to others.
SAVE = Method(1, "save", tuple[SaveBatch], SaveReply)
LOAD_AFTER = Method(2, "load_after", tuple[Key, Mid, int, int], Page, is_read=True)
ACKNOWLEDGE = Method(3, "acknowledge", tuple[Key, str, Mid], type(None))
ACKNOWLEDGED = Method(4, "acknowledged", tuple[Key, str], Mid, is_read=True)
DELETE_KEY = Method(5, "delete_key", tuple[Key], int)
DELETE_MESSAGE = Method(6, "delete_message", tuple[Key, Mid], bool)
INSPECT = Method(7, "inspect", tuple[Key], Stored, is_read=True)
CLOCK = Method(8, "clock", tuple[()], Mid, is_read=True)
IS_FENCED = Method(9, "is_fenced", tuple[str], bool, is_read=True)
STATUS = Method(10, "status", tuple[()], MessageStatus, is_read=True)
CLOCKS = Method(11, "clocks", tuple[()], list[StoreServer], is_read=True)

# A node that has not told who is fenced by then may be stopped: another one is asked, too. Together with
# FENCED_S of message/storage/sharded.py below a third of a session timeout of a second (Standing).
NEXT_S = 0.15

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class MessageTimeouts:
    """How long the caller waits for a message node."""

    # A save without an answer for this long is in doubt and is repeated.
    save_s: float = 3.0
    # For everything else.
    other_s: float = 5.0


def message_routes(
    service: MessageService,
    *,
    save: Callable[[SaveBatch], asyncio.Future[SaveReply]] | None = None,
    is_fenced: Callable[[str], Awaitable[bool]] | None = None,
) -> list[Route]:
    """What a server needs to serve any implementation.

    Args:
        save, is_fenced: answer in the service's place, by more than its store knows.
    """
    return [
        Route(SAVE, save or service.save),
        Route(LOAD_AFTER, service.load_after),
        Route(ACKNOWLEDGE, service.acknowledge),
        Route(ACKNOWLEDGED, service.acknowledged),
        Route(DELETE_KEY, service.delete_key),
        Route(DELETE_MESSAGE, service.delete_message),
        Route(INSPECT, service.inspect),
        Route(CLOCK, service.clock),
        Route(CLOCKS, service.clocks),
        Route(IS_FENCED, is_fenced or service.is_fenced),
    ]


def message_node_routes(service: MessageNodeService) -> list[Route]:
    """What a node serves besides its store."""
    return [Route(STATUS, service.status)]


class MessageStub:
    """A message node at the other end of a client. Implements MessageService and MessageNodeService."""

    def __init__(self, client: RpcClient, timeouts: MessageTimeouts) -> None:
        """The client's owner starts and stops it."""
        self.client = client
        self._save_s = timeouts.save_s
        self._other_s = timeouts.other_s

    @property
    def is_up(self) -> bool:
        """Connected to a node that takes calls."""
        return self.client.is_up

    @property
    def is_connecting(self) -> bool:
        """A call made now waits for the connection."""
        return self.client.is_connecting

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """See MessageService.save(). InDoubtError: the answer was lost."""
        return self.client.call(SAVE, (batch,), self._save_s)

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """See MessageService.load_after()."""
        return await self.client.call(LOAD_AFTER, (key, after, max_messages, max_bytes), self._other_s)

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """See MessageService.acknowledge()."""
        await self.client.call(ACKNOWLEDGE, (key, device, mid), self._other_s)

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """See MessageService.acknowledged()."""
        return await self.client.call(ACKNOWLEDGED, (key, device), self._other_s)

    async def delete_key(self, key: Key) -> int:
        """See MessageService.delete_key()."""
        return await self.client.call(DELETE_KEY, (key,), self._other_s)

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """See MessageService.delete_message()."""
        return await self.client.call(DELETE_MESSAGE, (key, mid), self._other_s)

    async def inspect(self, key: Key) -> Stored:
        """See MessageService.inspect()."""
        return await self.client.call(INSPECT, (key,), self._other_s)

    async def clock(self) -> Mid:
        """See MessageService.clock()."""
        return await self.client.call(CLOCK, (), self._other_s)

    async def clocks(self) -> list[StoreServer]:
        """See MessageService.clocks()."""
        return await self.client.call(CLOCKS, (), self._other_s)

    async def is_fenced(self, incarnation: str) -> bool:
        """See MessageService.is_fenced()."""
        return await self.client.call(IS_FENCED, (incarnation,), self._other_s)

    async def status(self) -> MessageStatus:
        """See MessageNodeService.status()."""
        return await self.client.call(STATUS, (), self._other_s)


class MessageNodes:
    """All message nodes as one MessageService: each key has its node, and another when that is down.

    A save is tried once: its caller repeats it with the same ids when it is in
    doubt (comet/pushing/saving.py), and the repeat goes to the node that is up then.
    What may simply be asked again is asked again here.
    """

    def __init__(self, balancer: Balancer[MessageStub]) -> None:
        """The balancer's owner keeps its list up to date."""
        self._balancer = balancer

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """See MessageService.save()."""
        stub = self._balancer.choose(batch.key)
        if stub is not None:
            return stub.save(batch)
        future: asyncio.Future[SaveReply] = asyncio.get_running_loop().create_future()
        future.set_exception(_nobody())
        return future

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """See MessageService.load_after()."""
        return await self._ask(key, lambda stub: stub.load_after(key, after, max_messages, max_bytes))

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """See MessageService.acknowledge()."""
        await self._ask(key, lambda stub: stub.acknowledge(key, device, mid))

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """See MessageService.acknowledged()."""
        return await self._ask(key, lambda stub: stub.acknowledged(key, device))

    async def delete_key(self, key: Key) -> int:
        """See MessageService.delete_key(). Not repeated in doubt: the count would be lost."""
        return await self._ask(key, lambda stub: stub.delete_key(key), is_repeatable=False)

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """See MessageService.delete_message(). Not repeated in doubt: whether it was there would be lost."""
        return await self._ask(key, lambda stub: stub.delete_message(key, mid), is_repeatable=False)

    async def inspect(self, key: Key) -> Stored:
        """See MessageService.inspect()."""
        return await self._ask(key, lambda stub: stub.inspect(key))

    async def clock(self) -> Mid:
        """See MessageService.clock(); of the first node that answers."""
        return await self._ask(Key(""), lambda stub: stub.clock())

    async def clocks(self) -> list[StoreServer]:
        """See MessageService.clocks(); of the first node that answers."""
        return await self._ask(Key(""), lambda stub: stub.clocks())

    async def is_fenced(self, incarnation: str) -> bool:
        """See MessageService.is_fenced(); of any node, they all ask the store.

        A node that is silent is not waited for alone until its connection is given up: a comet node
        without an answer stops serving before that. The first that tells is believed.
        """
        questions: list[asyncio.Task[bool]] = []
        try:
            return await self._ask_in_turn(incarnation, questions)
        finally:
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)

    async def _ask_in_turn(self, incarnation: str, questions: list[asyncio.Task[bool]]) -> bool:
        """Ask one node after the other whether it is fenced, until one tells.

        Args:
            questions: gets what is asked; the caller ends it.
        """
        key = Key(incarnation)
        asked: list[MessageStub] = []
        error = _nobody()
        stub = self._balancer.choose(key)
        waiting: set[asyncio.Task[bool]] = set()
        while stub is not None or waiting:
            if stub is not None:
                asked.append(stub)
                questions.append(asyncio.create_task(stub.is_fenced(incarnation)))
                waiting.add(questions[-1])
            stub = self._balancer.choose_other(key, *asked)
            done, waiting = await asyncio.wait(
                waiting, timeout=None if stub is None else NEXT_S, return_when=asyncio.FIRST_COMPLETED
            )
            for question in done:
                try:
                    return question.result()
                except UnavailableError as failure:
                    # Also of a node that has too much to do: this is one small question.
                    error = failure
        raise error

    async def _ask(
        self, key: Key, ask: Callable[[MessageStub], Awaitable[R]], *, is_repeatable: bool = True
    ) -> R:
        """Ask the key's node, and when it cannot answer, another one, which has the same store.

        Args:
            is_repeatable: what may have been done may be asked for again.
        """
        stub = self._balancer.choose(key)
        if stub is None:
            raise _nobody()
        try:
            return await ask(stub)
        except (OverloadedError, DeadlinePassedError):
            raise
        except UnavailableError as error:
            if isinstance(error, InDoubtError) and not is_repeatable:
                raise
            other = self._balancer.choose_other(key, stub)
            if other is None:
                raise
        return await ask(other)


def _nobody() -> UnavailableError:
    return UnavailableError("no message node is registered")
