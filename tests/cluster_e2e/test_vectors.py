"""The recorded vectors that need two comet nodes, replayed. The others: tests/e2e/test_vectors*.py."""

from __future__ import annotations

import asyncio

from tests.e2e import vector_differences as differences
from tests.e2e.recording import VECTORS, assert_headers_kept, close_code, read_head, recorded_bytes
from tests.support.cluster import Cluster
from tests.support.eventually import eventually_told
from tests.support.peer import Peer
from tests.support.zookeeper import operator

# The keys of the recording are owned by one each.
NODES = ("comet-a", "comet-b")
OWNERS = {"mig0": "comet-a", "mig2": "comet-b"}
# No registration ends by itself within a test.
LONG_SESSION_S = 60.0
IMPATIENT_WEB = "[web]\nrequest_timeout_s = 1.0\n"


async def start_two(cluster: Cluster, web: str = "") -> None:
    """Start both nodes, one of each other kind, and wait until each serves its key."""
    nodes = [cluster.node("comet", name, session_s=LONG_SESSION_S) for name in NODES]
    cluster.start(("message", "message-1"), others=[*nodes, cluster.node("web", "web-1", more=web)])
    for key, name in OWNERS.items():
        await cluster.wait_owner(key, name)


async def test_subscriber_at_the_wrong_node_is_told_so(cluster: Cluster) -> None:
    vector = VECTORS["ws_wrong_node"]
    await start_two(cluster)
    peer = await Peer.connect(cluster.nodes[OWNERS["mig0"]].addresses["ws"])
    try:
        await peer.send(recorded_bytes(vector["request"]))
        expected_head, _, line = recorded_bytes(vector["response"]).partition(b"\r\n\r\n")
        head = await read_head(peer)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert_headers_kept(expected_head, head)
        end = await peer.read_to_end()
        assert end.startswith(line)
        assert close_code(end[len(line) :]) == 1005
    finally:
        await peer.close()


async def test_push_to_a_key_that_has_moved_reaches_its_subscriber_at_the_new_node(cluster: Cluster) -> None:
    cluster.start(("message", "message-1"), ("comet", "comet-a"), ("web", "web-1"))
    await cluster.wait_owner("mig2", "comet-a")
    await asyncio.to_thread(cluster.node("comet", "comet-b").start)
    await cluster.wait_owner("mig2", "comet-b")
    async with cluster.nodes["comet-b"].tcp("mig2", version="1.0") as subscriber:
        answer = await cluster.web.ask(
            "admin", "POST", "/1/admin/push/private?key=mig2&expire=600", b'{"n":1}'
        )
        assert answer.body == recorded_bytes(VECTORS["moved_key_push"]["response"])
        assert (await subscriber.next_document()).value["msg"] == {"n": 1}


async def test_push_to_many_keys_names_those_of_a_dead_node_until_the_other_has_taken_them_over(
    cluster: Cluster,
) -> None:
    vector = VECTORS["mprivate_one_node_dead"]
    await start_two(cluster, IMPATIENT_WEB)
    dead = OWNERS["mig2"]
    cluster.nodes[dead].kill()

    async def is_answered(expected: bytes) -> bool:
        target = "/1/admin/push/mprivate?expire=600"
        answer = await cluster.web.ask("admin", "POST", target, recorded_bytes(vector["request"]))
        return answer.body == expected

    # Its registration stands.
    recorded = recorded_bytes(vector["response"]).partition(b"\r\n\r\n")[2]
    await eventually_told(lambda: is_answered(recorded))

    with operator(cluster.zookeeper) as client:
        client.delete(cluster.comet_entries(dead), recursive=True)
    taken_over = differences.PUSHED["mprivate_one_node_dead"].response
    await eventually_told(lambda: is_answered(taken_over))
