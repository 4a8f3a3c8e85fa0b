"""Nodes of a real cluster that do without some of their listeners."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.cluster import Cluster, owned_by
from tests.support.eventually import eventually_told
from tests.support.system import Server
from tests.support.workers import worker_addresses
from tests.support.zookeeper import operator

COMETS = ("comet-1", "comet-2")
MINE, OTHERS = (owned_by(COMETS, name, 1)[0] for name in COMETS)


async def test_comet_node_without_tcp_serves_its_keys_by_websocket(cluster: Cluster) -> None:
    half = cluster.node("comet", "comet-1", off=("tcp",))
    cluster.start(("message", "message-1"), ("comet", "comet-2"), ("web", "web-1"), others=[half])
    await wait_located(cluster, MINE, "ws", half)
    # Nobody is sent to the other node, which would refuse the key.
    assert await cluster.locate(MINE, "tcp") is None
    await wait_located(cluster, OTHERS, "tcp", cluster.nodes["comet-2"])
    await deliver(cluster, half, MINE)

    node = next(one for one in await listed(cluster.web) if one["name"] == "comet-1")
    assert (node["state"], node["fault"]) == ("serving", None)
    assert set(node["addresses"]) == {"ws", "rpc"}
    path = cluster.comet_entries("comet-1")
    with operator(cluster.zookeeper) as client:
        text, _ = client.get(f"{path}/{client.get_children(path)[0]}")
    # As tools of the original read it.
    assert json.loads(text)["tcp"] == []

    # The entry of the process before is its own, and not that of one before whom it has to wait.
    half.kill()
    half.start()
    await wait_located(cluster, MINE, "ws", half)
    await deliver(cluster, half, MINE)
    half.stop()
    # Whose other node can be reached by TCP.
    await wait_located(cluster, MINE, "tcp", cluster.nodes["comet-2"])


async def test_entry_without_a_transport_counts_like_any_other(cluster: Cluster) -> None:
    cluster.start(("message", "message-1"), ("comet", "comet-2"), ("web", "web-1"))
    with operator(cluster.zookeeper) as client:
        text = b'{"rpc":["127.0.0.1:1"],"tcp":null,"ws":["c1.example:6968"],"weight":1}'
        client.create(f"{cluster.comet_entries('comet-1')}/0000000000", text, ephemeral=True, makepath=True)

        async def is_known() -> bool:
            return await cluster.locate(MINE, "ws") == ("c1.example", 6968)

        await eventually_told(is_known)
        assert await cluster.locate(MINE, "tcp") is None
        await wait_located(cluster, OTHERS, "tcp", cluster.nodes["comet-2"])


async def test_web_nodes_share_out_their_apis(cluster: Cluster) -> None:
    cluster.start(
        *(("message", "message-1"), ("comet", "comet-1")),
        others=[
            cluster.node("web", "web-1", off=("admin",)),
            cluster.node("web", "web-2", off=("public", "status")),
            cluster.node("web", "web-3"),
        ],
    )
    public, admin = cluster.nodes["web-1"], cluster.nodes["web-2"]
    await cluster.wait_owner("k", "comet-1")
    assert await admin.push("k", 1, 600) == 0
    assert [message["msg"] for message in await public.fetch("k")] == [1]

    async def all_tell(asked: str, silent: set[str]) -> bool:
        nodes = await listed(cluster.nodes[asked])
        return len(nodes) == 5 and {node["name"] for node in nodes if node["fault"]} == silent

    await eventually_told(lambda: all_tell("web-2", set()))
    await eventually_told(lambda: all_tell("web-3", {"web-2"}))
    nodes = {node["name"]: node for node in await listed(cluster.nodes["web-3"])}
    assert set(nodes["web-1"]["addresses"]) == {"public", "status"}
    assert set(nodes["web-2"]["addresses"]) == {"admin"}
    assert "web.status_bind" in nodes["web-2"]["fault"]


async def test_nodes_without_a_status_port_are_listed_all_the_same(cluster: Cluster) -> None:
    cluster.start(
        ("web", "web-1"),
        others=[
            cluster.node("message", "message-1", off=("status",)),
            cluster.node("comet", "comet-1", off=("status", "ws"), flags=("--workers", "2")),
        ],
    )
    comets = cluster.nodes["comet-1"]
    assert {name: set(there) for name, there in worker_addresses(comets).items()} == {
        "comet-1-0": {"tcp", "rpc"},
        "comet-1-1": {"tcp", "rpc"},
    }

    async def all_tell() -> bool:
        nodes = await listed(cluster.web)
        return len(nodes) == 4 and not any(node["fault"] for node in nodes)

    await eventually_told(all_tell)
    assert await asyncio.to_thread(comets.stop) == 0


async def listed(web: Server) -> list[dict[str, Any]]:
    nodes = (await web.ask("admin", "GET", "/2/admin/nodes")).json["nodes"]
    assert isinstance(nodes, list)
    return nodes


async def deliver(cluster: Cluster, node: Server, key: str) -> None:
    async with node.websocket(key, version="2") as subscriber:
        assert await cluster.web.push(key, {"n": 1}, 600) == 0
        assert (await subscriber.next_document()).value["msg"] == {"n": 1}


async def wait_located(cluster: Cluster, key: str, transport: str, node: Server) -> None:
    """Until subscribers of a key are sent to this node."""

    async def is_there() -> bool:
        return await cluster.locate(key, transport) == node.addresses[transport]

    await eventually_told(is_there)
