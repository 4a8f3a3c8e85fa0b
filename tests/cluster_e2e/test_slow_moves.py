"""Subscribers that wait to be sent away after their key has moved: they get what the new owner is given."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.eventually import eventually

TWO = ("comet-1", "comet-2")
THREE = ("comet-1", "comet-2", "comet-3")
NODES = (("message", "message-1"), ("message", "message-2"), ("web", "web-1"))

# One key a second: the last subscribers wait for much longer than a message may take.
SLOWLY = {"ENCKE_COMET__CLOSE_PACE_PER_S": "1"}
MOVING = 12


def slow_run(cluster: Cluster, seed: int) -> tuple[ClusterRun, list[str]]:
    """Start two slow comet nodes and the others; a load on keys that mostly go to a third, and these."""
    cluster.start(*NODES, others=[cluster.node("comet", name, environ=SLOWLY) for name in TWO])
    moving = owned_by(THREE, "comet-3", MOVING)
    return ClusterRun(cluster, owned_by(THREE, "comet-1", 1) + moving, seed), moving


async def test_who_waits_to_be_sent_away_misses_nothing(cluster: Cluster, seed: int) -> None:
    run, moving = slow_run(cluster, seed)
    async with run.under_way():
        third = cluster.node("comet", "comet-3")
        await asyncio.to_thread(third.start)
        await run.wait_served_by("comet-3", keys=moving)
    assert run.failed_tries == []
    for reader in run.readers_of(*moving):
        assert [end.code for end in reader.ends] == [4001]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_new_owner_that_goes_while_others_still_wait_leaves_no_gap(
    cluster: Cluster, end: str, seed: int
) -> None:
    run, moving = slow_run(cluster, seed)
    async with run.under_way():
        third = cluster.node("comet", "comet-3")
        await asyncio.to_thread(third.start)
        await eventually(lambda: any(reader.visited[-1] == "comet-3" for reader in run.readers))
        await run.push_on()
        if end == "stop":
            assert await asyncio.to_thread(third.stop) == 0
            await run.wait_served_by(*TWO)
            assert run.failed_tries == []
        else:
            async with run.fault():
                third.kill()
                await run.wait_served_by(*TWO)
        # Whoever was to go is sent away though the key has come back: it may have missed something.
        await eventually(lambda: all(reader.ends for reader in run.readers_of(*moving)), 3 * MOVING)


async def test_a_former_owner_that_dies_while_subscribers_wait_there_loses_nothing(
    cluster: Cluster, seed: int
) -> None:
    run, moving = slow_run(cluster, seed)
    async with run.under_way():
        third = cluster.node("comet", "comet-3")
        await asyncio.to_thread(third.start)
        await eventually(lambda: any(reader.visited[-1] == "comet-3" for reader in run.readers))
        async with run.fault():
            cluster.nodes["comet-2"].kill()
            await run.wait_served_by("comet-1", "comet-3")
        await run.push_on()
        await run.wait_served_by("comet-3", keys=moving)
