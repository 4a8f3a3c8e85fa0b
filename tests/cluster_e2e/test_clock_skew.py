"""Comet nodes whose wall clocks are wrong, each in another direction, take over from each other."""

from __future__ import annotations

import asyncio

from tests.cluster_e2e.six import COMETS, NODES, six_keys
from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.faketime import offset_time

OFFSETS = {"comet-1": "+5s", "comet-2": "-5s"}


async def test_order_is_kept_between_comet_nodes_whose_clocks_are_ten_seconds_apart(
    cluster: Cluster, seed: int
) -> None:
    for name, offset in OFFSETS.items():
        cluster.node("comet", name, environ=offset_time(offset))
    others = [(kind, name) for kind, name in NODES if kind != "comet"]
    comets = [cluster.nodes[name] for name in COMETS]
    await asyncio.gather(
        asyncio.to_thread(cluster.start, *others), *(asyncio.to_thread(comet.start) for comet in comets)
    )
    run = ClusterRun(cluster, six_keys(), seed)
    async with run.under_way():
        for name, other in (COMETS, tuple(reversed(COMETS))):
            lost = owned_by(COMETS, name, 3)
            async with run.fault():
                cluster.nodes[name].kill()
                await run.wait_served_by(other, keys=lost)
                await run.push_on(50)
                await asyncio.to_thread(cluster.nodes[name].start)
                await run.wait_served_by(name, keys=lost)
                await run.push_on(50)
    assert not any(reader.gaps for reader in run.readers)
