"""Nodes that start before what they need is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.servers import free_port
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


async def is_listening(server: Server, kind: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(*server.addresses[kind])
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
