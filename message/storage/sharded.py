"""Several store servers as one store: each key lives on the server that a ring gives it.

The servers know nothing of each other. One that is away fails the saves and
reads of its own keys only; what asks all of them says what it does then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from cluster.contracts.message import Guarantee, Page, SaveBatch, SaveReply, Stored
from cluster.errors import ConfigError, EnckeError, UnavailableError
from cluster.model import Key, Mid, StoreServer
from cluster.storering import StoreRing
from message.storage.base import MessageStore
from message.storage.servers import ServerUrl

T = TypeVar("T")

# Of several servers one that has not told its clock by then is not waited for.
CLOCK_S = 1.0

# Likewise, who is fenced. Each push waits for this while the registry is away, and a comet node that has no
# answer after a third of its session timeout asks anew.
FENCED_S = 0.1


class ServerStore(MessageStore, Protocol):
    """A store on one server."""

    @property
    def queued(self) -> int:
        """Saves and changes that wait for the server."""
        ...

    @property
    def heard_clock(self) -> Mid:
        """The least that the server's clock can be, by what it said last; 0 if it never answered."""
        ...


class ShardedStore:
    """MessageStore over one store per server. Belongs to the event loop that starts it."""

    def __init__(self, stores: Mapping[ServerUrl, ServerStore]) -> None:
        """Put them together.

        Args:
            stores: by server, each not open yet. Their names must differ.
        """
        self._stores: list[ServerStore] = list(stores.values())
        self._by_name = {server.name: store for server, store in stores.items()}
        self._weights = {server.name: server.weight for server in stores}
        self._ring = StoreRing(self._weights)

    @property
    def queued(self) -> int:
        """Saves and changes that wait, for all servers together."""
        return sum(store.queued for store in self._stores)

    def server_of(self, key: Key) -> str:
        """Name of the server that holds a key."""
        return self._ring.server_of(key)

    async def start(self) -> None:
        """Start the stores; see MessageStore.start(). A server that is away is tried again later."""
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        results = await _ask_all([store.start() for store in self._stores])
        faults = [fault for r in results if isinstance(r, ConfigError) for fault in r.faults]
        errors = [r for r in results if isinstance(r, BaseException)]
        if errors:
            await self.stop()
            raise ConfigError(faults) if faults else errors[0]

    async def stop(self) -> None:
        """Stop the stores; see MessageStore.stop()."""
        await asyncio.gather(*(store.stop() for store in self._stores))

    def describe(self) -> list[Guarantee]:
        """What each server promises."""
        return [guarantee for store in self._stores for guarantee in store.describe()]

    def start_fault(self) -> str | None:
        """Why none has answered; see MessageStore.start_fault(). One is enough: it has keys of its own."""
        faults = [store.start_fault() for store in self._stores]
        return None if None in faults else "; ".join(fault for fault in faults if fault)

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """Store a batch; see MessageService.save()."""
        stores = self._stores
        return (stores[0] if len(stores) == 1 else self._store(batch.key)).save(batch)

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """Read a page; see MessageService.load_after()."""
        return await self._store(key).load_after(key, after, max_messages, max_bytes)

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        """Remember a device's mid; see MessageService.acknowledge()."""
        await self._store(key).acknowledge(key, device, mid)

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """A device's acknowledged mid; see MessageService.acknowledged()."""
        return await self._store(key).acknowledged(key, device)

    async def delete_key(self, key: Key) -> int:
        """Delete what is stored for a key; see MessageService.delete_key()."""
        return await self._store(key).delete_key(key)

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        """Delete one message; see MessageService.delete_message()."""
        return await self._store(key).delete_message(key, mid)

    async def inspect(self, key: Key) -> Stored:
        """Count what is stored for a key; see MessageService.inspect()."""
        return await self._store(key).inspect(key)

    async def clock(self) -> Mid:
        """The clock of the server that is furthest behind; see MessageService.clock().

        Raises:
            UnavailableError, StorageError: none answers.
        """
        return min(server.clock for server in await self.clocks() if server.clock)

    async def clocks(self) -> list[StoreServer]:
        """Each server's clock, or what it must be by now; see MessageService.clocks()."""
        answers = await _ask_all([self._ask_clock(store) for store in self._stores])
        _answers(answers)
        return [
            StoreServer(name, weight, store.heard_clock if isinstance(answer, BaseException) else answer)
            for (name, weight), store, answer in zip(
                self._weights.items(), self._stores, answers, strict=True
            )
        ]

    async def fence(self, incarnation: str) -> None:
        """Refuse an incarnation's saves on every server; see MessageStore.fence().

        Raises:
            UnavailableError, StorageError: not all have answered; those that have know it.
        """
        for result in await _ask_all([store.fence(incarnation) for store in self._stores]):
            if isinstance(result, BaseException):
                raise result

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether any server has the incarnation fenced; see MessageStore.is_fenced().

        The first yes is the answer. No is, when one has said so and the silent ones had their time: a
        server that is silent fails its own keys only, as one that is down does. Why the no holds
        without it:

        - fence() writes to every server. One that answers now was told then, or was away then and
          is told when it is back: Fencer tries on.
        - Until all servers know it, a Fencer that saw the incarnation end says no to nobody about it.
        - Saves do not rely on this: each server looks for the fence in the saving transaction.

        What remains, with a server that is down as with a silent one: the servers that were told are
        all away, those that answer were away before and are not told yet, and the message node that
        is asked has not seen the end, as it was cut off or started later. Then an ended incarnation
        delivers what is not stored. To take silence for a yes would send all subscribers away
        whenever one server hangs while the registry is away, though nobody is fenced.

        Raises:
            UnavailableError, StorageError: no server has answered.
        """
        if len(self._stores) == 1:
            return await self._stores[0].is_fenced(incarnation)
        questions = [asyncio.create_task(store.is_fenced(incarnation)) for store in self._stores]
        try:
            return await _any_says_yes(questions)
        finally:
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)

    async def remove_expired(self, limit: int) -> int:
        """Free what has expired on each server; see MessageStore.remove_expired()."""
        return sum(_answers(await _ask_all([store.remove_expired(limit) for store in self._stores])))

    async def _ask_clock(self, store: ServerStore) -> Mid:
        if len(self._stores) == 1:
            return await store.clock()
        try:
            async with asyncio.timeout(CLOCK_S):
                return await store.clock()
        except TimeoutError:
            raise UnavailableError("a store server does not tell its clock") from None

    def _store(self, key: Key) -> ServerStore:
        if len(self._stores) == 1:
            return self._stores[0]
        try:
            return self._by_name[self._ring.server_of(key)]
        except UnicodeEncodeError:
            # No key at all; any of them says so.
            return self._stores[0]


async def _ask_all(asking: Sequence[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
    return await asyncio.gather(*asking, return_exceptions=True)


async def _any_says_yes(questions: Sequence[asyncio.Task[bool]]) -> bool:
    """The first yes, or that nobody said it: when all have answered, or FENCED_S have passed and one has."""
    loop = asyncio.get_running_loop()
    end = loop.time() + FENCED_S
    waiting = set(questions)
    results: list[bool | BaseException] = []
    while waiting:
        left_s = end - loop.time() if False in results else None
        done, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return False
        results += await asyncio.gather(*done, return_exceptions=True)
        if True in results:
            return True
    return any(_answers(results))


def _answers(results: Sequence[T | BaseException]) -> list[T]:
    """The answers that there are; when there is none, the error of the first is raised."""
    answers: list[T] = []
    first: BaseException = UnavailableError("no store server")
    for result in reversed(results):
        if not isinstance(result, BaseException):
            answers.append(result)
        elif isinstance(result, EnckeError):
            first = result
        else:
            raise result
    if not answers:
        raise first
    return answers
