"""Nodes that come, leave and die while pushes go on: nothing is lost, repeated or reordered."""

from __future__ import annotations

import asyncio
import time

from tests.support.cluster import SESSION_S, Cluster, owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.eventually import eventually
from tests.support.history import Fault

TWO = ("comet-1", "comet-2")
THREE = ("comet-1", "comet-2", "comet-3")
NODES = (
    ("message", "message-1"),
    ("message", "message-2"),
    ("comet", "comet-1"),
    ("comet", "comet-2"),
    ("web", "web-1"),
)


async def test_a_comet_node_that_joins_takes_its_keys_and_nobody_else_is_disturbed(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*NODES)
    # Of the keys of three nodes those of the third come from the first two.
    moving = owned_by(THREE, "comet-3", 4)
    staying = owned_by(THREE, "comet-1", 2) + owned_by(THREE, "comet-2", 2)
    run = ClusterRun(cluster, moving + staying, seed)
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
    assert run.failed_tries == []


async def test_a_comet_node_that_is_told_to_stop_leaves_without_a_failed_push(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*NODES)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    async with run.under_way():
        assert await asyncio.to_thread(cluster.nodes["comet-2"].stop) == 0
        await eventually(lambda: all(reader.visited[-1] == "comet-1" for reader in run.readers))
    assert run.failed_tries == []
    for key in owned_by(TWO, "comet-2", 3):
        assert [end.code for end in run.reader(key).ends] == [1001]


async def test_the_keys_of_a_killed_comet_node_are_served_by_the_other(cluster: Cluster, seed: int) -> None:
    cluster.start(*NODES)
    lost = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + lost, seed)
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


async def test_pushes_go_on_when_a_message_node_is_killed(cluster: Cluster, seed: int) -> None:
    cluster.start(*NODES)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    async with run.under_way():
        cluster.nodes["message-1"].kill()
        await run.push_on()
    assert run.failed_tries == []
    assert all(reader.ends == [] for reader in run.readers)
