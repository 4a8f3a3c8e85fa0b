"""Real node processes that form a cluster, without faults."""

from __future__ import annotations

import asyncio

from tests.support.cluster import Cluster, owned_by
from tests.support.eventually import eventually_told
from tests.support.subscriber import Line, subscribe_tcp, subscribe_websocket
from tests.support.system import Server

COMETS = ("comet-1", "comet-2")


async def test_a_push_goes_through_all_nodes_to_the_subscriber_of_the_owner(cluster: Cluster) -> None:
    cluster.start(("message", "message-1"), ("comet", "comet-1"), ("comet", "comet-2"), ("web", "web-1"))
    for name in COMETS:
        key = owned_by(COMETS, name, 1)[0]
        await cluster.wait_owner(key, name)
        for transport in ("tcp", "ws"):
            other = next(one for one in COMETS if one != name)
            async with cluster.nodes[name].subscriber(transport, key, version="2", mid=0) as subscriber:
                assert await cluster.web.push(key, [name, transport], 600) == 0
                expected = [[name, "tcp"]] if transport == "tcp" else [[name, "tcp"], [name, "ws"]]
                documents = await subscriber.documents(len(expected))
                assert [document.value["msg"] for document in documents] == expected
            # The other node turns subscribers of the key away.
            assert await refusal(cluster, other, key, transport)
        assert [m["msg"] for m in await cluster.web.fetch(key)] == [[name, "tcp"], [name, "ws"]]


async def test_nodes_of_every_kind_serve_on_while_they_are_not_ready(cluster: Cluster) -> None:
    environ = {"ENCKE_PROCESS__DRAIN_DELAY_S": "5"}
    nodes = [cluster.node(kind, f"{kind}-1", environ=environ) for kind in ("message", "comet", "web")]
    cluster.start(others=nodes)
    await cluster.wait_owner("k", "comet-1")
    for node in nodes:
        node.terminate()
        await eventually_told(lambda node=node: is_draining(node))
    async with cluster.nodes["comet-1"].tcp("k", version="2") as subscriber:
        assert await cluster.web.push("k", 1, 600) == 0
        assert (await subscriber.next_document()).value["msg"] == 1
        assert [message["msg"] for message in await cluster.web.fetch("k")] == [1]
        assert not any("draining for at most" in node.log for node in nodes)
        assert (await subscriber.end()).code == 1001
    for node in nodes:
        assert await asyncio.to_thread(node.wait) == 0


async def is_draining(node: Server) -> bool:
    response = await node.ask("status", "GET", "/readyz")
    return response.status == 503 and response.body.startswith(b"draining\n")


async def refusal(cluster: Cluster, node: str, key: str, transport: str) -> bool:
    subscribe = subscribe_tcp if transport == "tcp" else subscribe_websocket
    subscriber = await subscribe(cluster.nodes[node].addresses[transport], key, version="2")
    try:
        return await subscriber.receive() == Line(b"-n\r\n")
    finally:
        await subscriber.close()
