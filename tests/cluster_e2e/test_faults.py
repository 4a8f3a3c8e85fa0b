"""Nodes that come, leave and die while pushes go on: nothing is lost, repeated or reordered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tests.support.cluster import SESSION_S, Cluster, Wanderer, owned_by
from tests.support.eventually import eventually
from tests.support.history import OK, Ack, Fault
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, in_background, stop_pushers, wait_caught_up

TWO = ("comet-1", "comet-2")
THREE = ("comet-1", "comet-2", "comet-3")
NODES = (
    ("message", "message-1"),
    ("message", "message-2"),
    ("comet", "comet-1"),
    ("comet", "comet-2"),
    ("web", "web-1"),
)
# Pushes that are answered before a fault, and after it.
ACKS = 150


class Run:
    """A recorded load on a cluster."""

    def __init__(self, cluster: Cluster, keys: list[str], seed: int) -> None:
        self.cluster = cluster
        self.keys = keys
        self.load = Load(cluster.web, seed)
        self.readers = [Wanderer(cluster, self.load, k, t) for k in keys for t in ("tcp", "ws")]

    def reader(self, key: str) -> Wanderer:
        """The TCP reader of a key."""
        return next(reader for reader in self.readers if reader.key == key)

    @contextlib.asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Push and read during the block and a while before and after it, then judge."""
        pushers = [Pusher(self.load, self.keys) for _ in range(3)]
        async with in_background(self.load.watch_stalls, *(reader.run for reader in self.readers)):
            await eventually(lambda: all(reader.visited for reader in self.readers))
            tasks = [asyncio.create_task(pusher.run()) for pusher in pushers]
            try:
                await self.push_on()
                yield
                await self.push_on()
            finally:
                await stop_pushers(pushers, tasks)
            await wait_caught_up(list(self.readers))
            for key in self.keys:
                await self.load.fetch(key)
        try:
            self.load.assert_sound(Rules(within_s=5.0))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.cluster.log()}") from None

    async def push_on(self) -> None:
        """Until some more pushes were answered as done."""
        goal = self.load.ack_count + ACKS
        await eventually(lambda: self.load.ack_count >= goal, 30)

    def failed(self) -> list[Ack]:
        """Pushes that were answered as failed."""
        return [e for e in self.load.history.events if isinstance(e, Ack) and (e.ret != OK or e.failed_keys)]


async def test_a_comet_node_that_joins_takes_its_keys_and_nobody_else_is_disturbed(cluster: Cluster) -> None:
    cluster.start(*NODES)
    # Of the keys of three nodes those of the third come from the first two.
    moving = owned_by(THREE, "comet-3", 4)
    staying = owned_by(THREE, "comet-1", 2) + owned_by(THREE, "comet-2", 2)
    run = Run(cluster, moving + staying, seed=1)
    async with run.under_way():
        third = cluster.node("comet", "comet-3")
        await asyncio.to_thread(third.start)
        await eventually(
            lambda: all(reader.visited[-1] == "comet-3" for reader in run.readers if reader.key in moving)
        )
    for reader in run.readers:
        if reader.key in moving:
            assert [end.code for end in reader.ends] == [4001]
        else:
            assert (len(reader.visited), reader.ends) == (1, [])
    assert run.failed() == []


async def test_a_comet_node_that_is_told_to_stop_leaves_without_a_failed_push(cluster: Cluster) -> None:
    cluster.start(*NODES)
    run = Run(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed=2)
    async with run.under_way():
        assert await asyncio.to_thread(cluster.nodes["comet-2"].stop) == 0
        await eventually(lambda: all(reader.visited[-1] == "comet-1" for reader in run.readers))
    assert run.failed() == []
    for key in owned_by(TWO, "comet-2", 3):
        assert [end.code for end in run.reader(key).ends] == [1001]


async def test_the_keys_of_a_killed_comet_node_are_served_by_the_other(cluster: Cluster) -> None:
    cluster.start(*NODES)
    lost = owned_by(TWO, "comet-2", 3)
    run = Run(cluster, owned_by(TWO, "comet-1", 3) + lost, seed=3)
    async with run.under_way():
        killed_at = time.monotonic()
        cluster.nodes["comet-2"].kill()
        await eventually(
            lambda: all(reader.visited[-1] == "comet-1" for reader in run.readers if reader.key in lost)
        )
        took_s = time.monotonic() - killed_at
        run.load.note(Fault(killed_at, time.monotonic()))
    # ZooKeeper rounds up to its tick; the machine is shared.
    assert took_s < SESSION_S + 4.0, took_s


async def test_pushes_go_on_when_a_message_node_is_killed(cluster: Cluster) -> None:
    cluster.start(*NODES)
    run = Run(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed=4)
    async with run.under_way():
        cluster.nodes["message-1"].kill()
        await run.push_on()
    assert run.failed() == []
    assert all(reader.ends == [] for reader in run.readers)
