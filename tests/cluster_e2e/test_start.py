"""Nodes that start before what they need is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.cluster import running_cluster
from tests.support.eventually import eventually
from tests.support.servers import RedisServer, free_port
from tests.support.system import Server
from tests.support.zookeeper import ZooKeeper


async def test_web_node_answers_nobody_before_it_knows_who_is_there(tmp_path: Path) -> None:
    zookeeper = ZooKeeper(tmp_path / "zookeeper")
    web = Server(
        tmp_path / "web-1",
        command="web",
        config=f'[registry]\nservers = ["{zookeeper.address}"]\nsession_timeout_s = 1.0\nretry_max_s = 0.2\n',
    )
    web.addresses = {kind: ("127.0.0.1", free_port()) for kind in ("public", "admin", "status")}
    starting = asyncio.create_task(asyncio.to_thread(web.start))
    try:
        await eventually(lambda: web.log_path.exists() and "waiting for it" in web.log)
        assert (await web.ask("status", "GET", "/readyz")).status == 503
        # It would say that nobody serves the key.
        for kind in ("public", "admin"):
            assert not await is_listening(web, kind)
        await asyncio.to_thread(zookeeper.start)
        await starting
        assert await is_listening(web, "admin")
        assert web.stop() == 0
    finally:
        web.kill()
        zookeeper.kill()
        await asyncio.gather(starting, return_exceptions=True)


async def test_message_node_is_not_ready_before_a_server_of_its_store_has_answered(
    tmp_path: Path, zookeeper: ZooKeeper
) -> None:
    redis = RedisServer(tmp_path / "redis")
    with running_cluster(tmp_path, zookeeper, redis) as cluster:
        node = cluster.node("message", "message-1")
        node.addresses["status"] = ("127.0.0.1", free_port())
        starting = asyncio.create_task(asyncio.to_thread(node.start))
        try:
            await eventually(lambda: node.log_path.exists() and "no server of the store" in node.log)
            answer = await node.ask("status", "GET", "/readyz")
            assert answer.status == 503
            assert b"no server of the store has answered yet: redis://127.0.0.1:" in answer.body
            redis.start()
            await starting
            assert (await node.ask("status", "GET", "/readyz")).status == 200
        finally:
            redis.kill()
            await asyncio.gather(starting, return_exceptions=True)
        # From now on it is like any other time without the store.
        assert (await node.ask("status", "GET", "/readyz")).status == 200


async def is_listening(server: Server, kind: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(*server.addresses[kind])
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
