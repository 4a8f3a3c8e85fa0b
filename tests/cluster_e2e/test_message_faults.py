"""Message nodes that die while pushes go on."""

from __future__ import annotations

from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun

TWO = ("comet-1", "comet-2")
NODES = (
    ("message", "message-1"),
    ("message", "message-2"),
    ("comet", "comet-1"),
    ("comet", "comet-2"),
    ("web", "web-1"),
)


async def test_pushes_go_on_when_a_message_node_is_killed(cluster: Cluster, seed: int) -> None:
    cluster.start(*NODES)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    async with run.under_way():
        cluster.nodes["message-1"].kill()
        await run.push_on()
    assert run.failed_tries == []
    assert all(reader.ends == [] for reader in run.readers)
