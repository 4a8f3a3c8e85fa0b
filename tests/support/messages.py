"""A bad way between a comet node and its message node: delays, refuses, loses answers."""

from __future__ import annotations

import asyncio
from collections import deque

from cluster.contracts.message import MessageService, Page, SaveBatch, SaveReply, Stored
from cluster.errors import InDoubtError
from cluster.model import Key, Mid, StoreServer


class BadWay:
    """Passes everything on to a real store, except for the accidents that a test has arranged."""

    def __init__(self, store: MessageService) -> None:
        self.store = store
        # What was asked to be saved, in order, repeats included.
        self.batches: list[SaveBatch] = []
        # Accidents of the next saves and acknowledgements, loads, deletions, first one first.
        self.refusals: deque[Exception] = deque()
        self.load_refusals: deque[Exception] = deque()
        # Loads of these keys fail, each time, and how many have.
        self.load_failures: dict[str, Exception] = {}
        self.loads_failed = 0
        self.delete_refusals: deque[Exception] = deque()
        # This many next saves are done, but their answers are lost.
        self.answers_to_lose = 0
        # Of a batch of so many items the answer is lost, once.
        self.answers_to_lose_of = 0
        # The answers to this many next saves lack their last result.
        self.answers_to_cut = 0
        # Saves, loads and deletions of these keys wait until their gate is opened; so do the
        # answers to what their devices have acknowledged.
        self.gates: dict[str, asyncio.Event] = {}
        # Loads of these keys alone; goes before the other gate.
        self.load_gates: dict[str, asyncio.Event] = {}
        self.loads_waiting = 0
        # How far ahead of the store's own clock it is told to be.
        self.clock_step: int = 0
        # Accidents of the next questions for the clock.
        self.clock_refusals: deque[Exception] = deque()
        # Accidents of the next questions whether a node is fenced.
        self.fence_refusals: deque[Exception] = deque()
        # Acknowledgements that have been written.
        self.acknowledged_writes: asyncio.Queue[Mid] = asyncio.Queue()

    def close_gate(self, key: str) -> asyncio.Event:
        """Hold up everything of a key; set() the result to let it pass."""
        gate = self.gates[key] = asyncio.Event()
        return gate

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        self.batches.append(batch)
        return asyncio.ensure_future(self._save(batch))

    async def _save(self, batch: SaveBatch) -> SaveReply:
        if batch.key in self.gates:
            await self.gates[batch.key].wait()
        if self.refusals:
            raise self.refusals.popleft()
        reply = await self.store.save(batch)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise InDoubtError("the answer was lost")
        if len(batch.items) == self.answers_to_lose_of:
            self.answers_to_lose_of = 0
            raise InDoubtError("the answer was lost")
        if self.answers_to_cut:
            self.answers_to_cut -= 1
            return SaveReply(reply.results[:-1], reply.clock)
        return reply

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        if self.load_refusals:
            raise self.load_refusals.popleft()
        if key in self.load_failures:
            self.loads_failed += 1
            raise self.load_failures[key]
        await self._pass_gate(key)
        return await self.store.load_after(key, after, max_messages, max_bytes)

    async def _pass_gate(self, key: Key) -> None:
        gate = self.load_gates.get(key) or self.gates.get(key)
        if gate is not None:
            self.loads_waiting += 1
            await gate.wait()
            self.loads_waiting -= 1

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        if self.refusals:
            raise self.refusals.popleft()
        await self.store.acknowledge(key, device, mid)
        self.acknowledged_writes.put_nowait(mid)

    async def acknowledged(self, key: Key, device: str) -> Mid:
        mid = await self.store.acknowledged(key, device)
        await self._pass_gate(key)
        return mid

    async def delete_key(self, key: Key) -> int:
        await self._pass_gate(key)
        if self.delete_refusals:
            raise self.delete_refusals.popleft()
        return await self.store.delete_key(key)

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        return await self.store.delete_message(key, mid)

    async def inspect(self, key: Key) -> Stored:
        return await self.store.inspect(key)

    async def clock(self) -> Mid:
        if self.clock_refusals:
            raise self.clock_refusals.popleft()
        return Mid(await self.store.clock() + self.clock_step)

    async def clocks(self) -> list[StoreServer]:
        return [StoreServer("", 1, await self.clock())]

    async def is_fenced(self, incarnation: str) -> bool:
        if self.fence_refusals:
            raise self.fence_refusals.popleft()
        return await self.store.is_fenced(incarnation)
