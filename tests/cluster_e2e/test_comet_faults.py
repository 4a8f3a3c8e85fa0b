"""Comet nodes that come, leave, stop and die while pushes go on: nothing is lost, repeated or reordered."""

from __future__ import annotations

import asyncio
import json
import time

from cluster.model import Key, NodeName
from cluster.ring import Ring
from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.eventually import eventually
from tests.support.history import Fault
from tests.support.zookeeper import operator

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
        run.load.note(Fault(killed_at, time.monotonic()))


async def test_comet_nodes_come_and_go_without_a_failed_push(cluster: Cluster, seed: int) -> None:
    cluster.start(*NODES)
    run = ClusterRun(cluster, [key for name in THREE for key in owned_by(THREE, name, 2)], seed)
    changing = [cluster.nodes["comet-2"], cluster.node("comet", "comet-3")]
    async with run.under_way():
        for _ in range(4):
            server = run.random.choice(changing)
            if server.is_running:
                assert await asyncio.to_thread(server.stop) == 0
            else:
                await asyncio.to_thread(server.start)
            await run.push_on()
    assert run.failed_tries == []
    # Told to go elsewhere, never just cut off.
    assert {end.code for reader in run.readers for end in reader.ends} <= {1001, 4001}


async def test_a_changed_weight_moves_keys_without_a_failed_push(cluster: Cluster, seed: int) -> None:
    cluster.start(*NODES)
    light, heavy = (Ring({NodeName("comet-1"): 1, NodeName("comet-2"): weight}) for weight in (1, 3))
    keys = [Key(f"w{number}") for number in range(60)]
    staying = [key for key in keys if light.owner(key) == heavy.owner(key)][:4]
    moving = [key for key in keys if light.owner(key) != heavy.owner(key)][:4]
    assert {heavy.owner(key) for key in moving} == {"comet-2"}
    run = ClusterRun(cluster, [*staying, *moving], seed)
    async with run.under_way():
        await asyncio.to_thread(set_weight, cluster, "comet-2", 3)
        await run.wait_served_by("comet-2", keys=list(moving))
        await run.push_on()
        await asyncio.to_thread(set_weight, cluster, "comet-2", 1)
        await run.wait_served_by("comet-1", keys=list(moving))
    assert run.failed_tries == []
    assert run.is_undisturbed(*staying)
    for reader in run.readers_of(*moving):
        assert [end.code for end in reader.ends] == [4001, 4001]


async def test_a_ring_that_flaps_loses_nothing(cluster: Cluster, seed: int) -> None:
    cluster.start(*NODES)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    async with run.under_way():
        for _ in range(3):
            for weight in (0, 1):
                await asyncio.to_thread(set_weight, cluster, "comet-2", weight)
                await run.push_on(run.random.randrange(5, 60))
        await run.wait_served_by("comet-2", keys=owned_by(TWO, "comet-2", 3))
    assert run.failed_tries == []
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))


async def test_a_killed_comet_node_that_comes_back_at_once_takes_its_own_place(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*(node for node in NODES if node[1] != "comet-2"))
    # Far longer than a start takes: otherwise its keys would move first.
    second = cluster.node("comet", "comet-2", session_s=10.0)
    await asyncio.to_thread(second.start)
    own = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
    async with run.under_way():
        for _ in range(2):
            async with run.fault():
                visits = run.visit_counts(*own)
                second.kill()
                await asyncio.to_thread(second.start)
                await run.wait_back(visits)
            await run.push_on()
    assert second.log.count("removed the entry that this node left behind") == 2
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))
    assert {name for reader in run.readers_of(*own) for name in reader.visited} == {"comet-2"}


async def test_a_standby_takes_the_place_of_a_killed_node_and_of_one_that_is_told_to_stop(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*NODES)
    standby = cluster.node("comet", "comet-2", process="standby")
    await asyncio.to_thread(standby.start)
    own = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
    async with run.under_way():
        async with run.fault():
            cluster.nodes["comet-2"].kill()
            await run.wait_served_by("standby", keys=own)
        await run.push_on()
        await asyncio.to_thread(cluster.nodes["comet-2"].start)
        run.forgive()
        assert await asyncio.to_thread(standby.stop) == 0
        await run.wait_served_by("comet-2", keys=own)
        await run.push_on()
        assert run.failed_tries == []
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))


async def test_a_comet_node_that_was_frozen_for_longer_than_its_session_hands_over_and_comes_back(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*NODES)
    own = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
    async with run.under_way(), run.fault():
        cluster.nodes["comet-2"].freeze()
        await cluster.wait_owner(own[0], "comet-1")
        await run.push_on()
        cluster.nodes["comet-2"].thaw()
        await eventually(lambda: all(reader.ends for reader in run.readers_of(*own)))
        await run.wait_served_by("comet-2", keys=own)
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))
    for reader in run.readers_of(*own):
        assert reader.ends[0].code == 4001


async def test_a_comet_node_that_was_frozen_for_less_than_its_session_keeps_everything(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*(node for node in NODES if node[1] != "comet-2"))
    second = cluster.node("comet", "comet-2", session_s=10.0)
    await asyncio.to_thread(second.start)
    own = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
    async with run.under_way():
        for _ in range(3):
            async with run.fault():
                second.freeze()
                # Every publisher comes to wait for it.
                await run.push_for(0.7)
                second.thaw()
            await run.push_on()
    assert run.is_undisturbed(*run.keys)


def set_weight(cluster: Cluster, name: str, weight: int) -> None:
    """Write a weight into the entry of a comet node, as an operator would."""
    with operator(cluster.zookeeper) as client:
        place = cluster.comet_entries(name)
        (entry,) = client.get_children(place)
        text, _ = client.get(f"{place}/{entry}")
        client.set(f"{place}/{entry}", json.dumps({**json.loads(text), "weight": weight}).encode())
