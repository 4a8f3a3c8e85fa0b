"""A recorded run of a cluster: backends push, subscribers resume, faults happen; then it is judged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from tests.support.cluster import Cluster, Wanderer
from tests.support.eventually import DEADLINE_S, eventually
from tests.support.history import OK, Ack, Fault, Push
from tests.support.history_checks import Rules
from tests.support.load import LOST, Load, in_background, wait_caught_up
from tests.support.publisher import FailedTry, Publisher

PUBLISHERS = 4
# Pushes that are answered before a fault, and after it.
ACKS = 150
# Stored messages and the time are asked for this often.
LOOK_S = 0.25
# Of what is told about a message that never arrived: before and after its push.
SHOWN_S = 1.0


class ClusterRun:
    """A load on a cluster whose first nodes have been started."""

    def __init__(self, cluster: Cluster, keys: list[str], seed: int) -> None:
        """Describe it: two subscribers of each key, and backends that push to all of them."""
        self.cluster = cluster
        self.keys = keys
        self.load = Load(cluster.web, seed)
        # For what a test itself leaves to chance.
        self.random = self.load.random
        self._forgiven_until = 0.0
        self.readers = [Wanderer(cluster, self.load, k, t) for k in keys for t in ("tcp", "ws")]
        self.publishers = [Publisher(self.load, cluster.webs, keys) for _ in range(PUBLISHERS)]

    def readers_of(self, *keys: str) -> list[Wanderer]:
        """The subscribers of some keys."""
        return [reader for reader in self.readers if reader.key in keys]

    def reader(self, key: str) -> Wanderer:
        """The TCP subscriber of a key."""
        return self.readers_of(key)[0]

    @contextlib.asynccontextmanager
    async def under_way(self, within_s: float = 5.0) -> AsyncIterator[None]:
        """Push and read during the block and a while before and after it, then judge all of it.

        Args:
            within_s: a subscriber has what was pushed after this time, if nothing is broken.
        """
        try:
            async with in_background(self.load.watch_stalls, self._look, *(r.run for r in self.readers)):
                await eventually(lambda: all(reader.visited for reader in self.readers))
                async with self._pushing():
                    await self.push_on()
                    yield
                    await self.push_on()
                await wait_caught_up(list(self.readers))
                for key in self.keys:
                    assert await self.load.fetch(key), f"{key} cannot be read after the run"
            self.load.assert_sound(Rules(within_s=within_s))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._story()}") from error

    async def push_on(self, acks: int = ACKS) -> None:
        """Until some more pushes were answered as done."""
        goal = self.load.ack_count + acks
        await eventually(lambda: self.load.ack_count >= goal, 30)

    async def push_for(self, seconds: float) -> None:
        """While something is so for that long; whether pushes are answered meanwhile is not asked."""
        end = self.load.history.now() + seconds
        await eventually(lambda: self.load.history.now() >= end, seconds + DEADLINE_S)

    @contextlib.asynccontextmanager
    async def fault(self) -> AsyncIterator[None]:
        """During the block, deliveries may be late."""
        began = self.load.history.now()
        try:
            yield
        finally:
            self.load.note(Fault(began, self.load.history.now()))

    async def wait_served_by(self, *names: str, keys: list[str] | None = None) -> None:
        """Until all subscribers of these keys (of all) are connected to one of these nodes."""
        readers = self.readers if keys is None else self.readers_of(*keys)
        await eventually(lambda: all(reader.visited[-1] in names for reader in readers), 2 * DEADLINE_S)

    def visit_counts(self, *keys: str) -> dict[Wanderer, int]:
        """How many connections each subscriber of these keys (of all) has had."""
        return {reader: len(reader.visited) for reader in self.readers_of(*(keys or self.keys))}

    async def wait_back(self, visits: dict[Wanderer, int]) -> None:
        """Until each of these subscribers has been connected anew since visit_counts()."""
        await eventually(lambda: all(len(reader.visited) > count for reader, count in visits.items()))

    @property
    def failed_tries(self) -> list[FailedTry]:
        """What was answered as failed, or not at all, repeated or not; but for what is forgiven."""
        tries = sorted((f for p in self.publishers for f in p.failed_tries), key=lambda one: one.t)
        return [one for one in tries if one.t > self._forgiven_until]

    def forgive(self) -> None:
        """Take what has failed so far for the fault's."""
        self._forgiven_until = self.load.history.now()

    def is_undisturbed(self, *keys: str) -> bool:
        """Whether the subscribers of these keys are all on their first connection."""
        return all(len(reader.visited) == 1 and not reader.ends for reader in self.readers_of(*keys))

    @contextlib.asynccontextmanager
    async def _pushing(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(publisher.run()) for publisher in self.publishers]
        try:
            yield
            for publisher in self.publishers:
                publisher.stop()
            # What has an id is pushed until it is done.
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Read a key, and the time, now and then; what is broken may not answer."""
        while True:
            with contextlib.suppress(*LOST):
                await self.load.fetch(self.random.choice(self.keys))
            with contextlib.suppress(*LOST):
                await self.load.ask_time()
            await asyncio.sleep(LOOK_S)

    def _story(self) -> str:
        answers = [event for event in self.load.history.events if isinstance(event, Ack)]
        lines = [
            f"{self.load.ack_count} pushes done, answers {[a.ret for a in answers if a.ret != OK][:20]}",
            *(f"{one.uid} at {one.t:.3f} by {one.web}: {one.what}" for one in self.failed_tries[:20]),
            *(f"{r.name} visited {r.visited}, ended {[end.code for end in r.ends]}" for r in self.readers),
        ]
        return "\n".join([*lines, *self._around_missing(), self.cluster.log()])

    def _around_missing(self) -> Iterator[str]:
        """What happened to the keys of messages that never arrived, around the time of their push."""
        events = self.load.history.events
        for key in self.keys:
            missing = {uid for reader in self.readers_of(key) for uid in reader.missing()}
            began = [event.t for event in events if isinstance(event, Push) and event.uid in missing]
            for event in events:
                is_near = any(abs(event.t - t) < SHOWN_S for t in began)
                if is_near and (f"'{key}" in repr(event) or getattr(event, "uid", "") in missing):
                    yield f"{key}: {event}"
