"""What a node tells of itself and of a key."""

from __future__ import annotations

from cluster.contracts.comet import CometStatus
from cluster.model import Key
from comet.config import CometConfig
from tests.comet.comet_suite.ground import Ground, Open
from tests.comet.nodes import Core

BOB = Key("bob")


class Telling(Ground):
    """Part of the suite."""

    async def test_status_tells_how_busy_the_node_is(self, opened: Open) -> None:
        async with opened(capacity=10, name="comet-7") as core:
            for key in ("bob", "bob", "alice"):
                await core.subscribe(key)
            await core.push(["bob", "alice", "nobody"], 1)

            assert await core.service.status() == CometStatus(3, 2, 10, 3, name="comet-7", fault=None)

    async def test_status_of_an_idle_node(self, core: Core) -> None:
        assert await core.service.status() == CometStatus(0, 0, 1000, 0, name=CometConfig().name)

    async def test_connections_of_a_key_are_told_in_order_of_arrival(self, core: Core) -> None:
        first = await core.subscribe("bob", device="phone")
        second = await core.subscribe_websocket("bob")
        await core.subscribe("alice")
        mid = (await core.push("bob", 1)).mids[0]

        tcp, ws = await core.service.connections(BOB)

        assert (tcp.transport, tcp.device, tcp.sent, tcp.unread_bytes) == ("tcp", "phone", mid, 0)
        assert (ws.transport, ws.device, ws.sent, ws.unread_bytes) == ("ws", "", mid, 0)
        for info, subscriber in ((tcp, first), (ws, second)):
            host, port = subscriber.peer.writer.get_extra_info("sockname")
            assert info.address == f"{host}:{port}"
        assert 1_700_000_000 < tcp.since <= ws.since

    async def test_key_without_connections_has_none(self, core: Core) -> None:
        await core.push("nobody", 1, expire_s=600)

        assert await core.service.connections(Key("nobody")) == []
