"""Every node of a cluster is stopped and started again, one after the other, while pushes go on."""

from __future__ import annotations

import asyncio

from tests.cluster_e2e.six import COMETS, MESSAGES, WEBS, started_run
from tests.support.cluster import Cluster, owned_by


async def test_a_rolling_restart_of_every_node_loses_and_repeats_nothing_and_fails_no_push_and_no_read(
    cluster: Cluster, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        for name in run.random.sample([*MESSAGES, *COMETS, *WEBS], 6):
            # As a load balancer does that is told first.
            cluster.resting = {name} & set(WEBS)
            node = cluster.nodes[name]
            assert await asyncio.to_thread(node.stop) == 0, f"{name} was not stopped in order"
            await asyncio.to_thread(node.start)
            cluster.resting = set()
            if name in COMETS:
                await cluster.wait_owner(owned_by(COMETS, name, 1)[0], name)
            await run.push_on(50)
    assert run.failed_tries == []
    assert run.load.failed_fetches == []
    # 1001: its node was stopped; 4001: its node is back, and takes its keys back.
    assert {end.code for reader in run.readers for end in reader.ends} <= {1001, 4001}
    assert not any(reader.gaps for reader in run.readers)
