"""A cluster whose one message node has the embedded store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.system import Server, ServerFailedError


def message_node(cluster: Cluster, name: str, data_dir: Path) -> Server:
    environ = {"ENCKE_MESSAGE__STORE": "embedded", "ENCKE_MESSAGE__DATA_DIR": str(data_dir)}
    return cluster.node("message", name, environ=environ)


async def test_its_message_node_may_come_back_on_another_port_while_its_old_entry_stands(
    cluster: Cluster, tmp_path: Path
) -> None:
    node = message_node(cluster, "message-1", tmp_path / "store")
    cluster.start(("comet", "comet-1"), ("web", "web-1"), others=[node])
    await cluster.wait_owner("bob", "comet-1")
    assert await cluster.web.push("bob", {"n": 1}, 600) == 0
    before = node.addresses["rpc"]

    node.kill()
    node.addresses = {}
    await asyncio.to_thread(node.start)

    assert node.addresses["rpc"] != before
    assert [message["msg"] for message in await cluster.web.fetch("bob")] == [{"n": 1}]
    assert await cluster.web.push("bob", {"n": 2}, 600) == 0
    assert node.stop() == 0


def test_a_second_one_is_refused_at_once_while_the_first_serves(cluster: Cluster, tmp_path: Path) -> None:
    message_node(cluster, "message-1", tmp_path / "store").start()
    second = message_node(cluster, "message-2", tmp_path / "other store")
    with pytest.raises(ServerFailedError, match="allows one message node, and message-1 is at"):
        second.start()
