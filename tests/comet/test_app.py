"""The life of a comet node: what it announces, how it drains, what is left when it stops."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

import comet.clockkeeper
from cluster.errors import StorageError
from cluster.membership import Membership
from cluster.model import Key, NodeInfo, NodeKind
from cluster.registry.base import Snapshot
from tests.comet.nodes import Core, running_core
from tests.support.eventually import eventually, eventually_told
from tests.support.peer import Peer
from tests.support.subscriber import End, subscribe_tcp

BOB = Key("bob")


def announced(core: Core) -> list[NodeInfo]:
    """What the registry says now."""
    seen: list[Snapshot] = []
    core.comet.registry.watch(seen.append)()
    return list(Membership(seen[-1]).of_kind(NodeKind.COMET))


async def test_node_announces_itself_when_it_listens(tmp_path: Path) -> None:
    async with running_core(tmp_path, name="comet-7", weight=3) as core:
        (info,) = announced(core)
        assert (info.name, info.weight, info.is_draining) == ("comet-7", 3, False)
        assert (info.instance, info.version) == ("test", "test")
        assert info.started_at > 1_700_000_000
        assert info.addresses == {
            purpose: (f"{host}:{port}",)
            for purpose, (host, port) in (("ws", core.comet.ws), ("tcp", core.comet.tcp))
        }
        assert core.node.ready_fault() is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        # Bound to all interfaces: the host that the client asked, with the bound port.
        ({"ws_bind": "0.0.0.0:0"}, ":PORT"),
        ({"ws_bind": ":0"}, ":PORT"),
        ({"ws_advertise": "push.example.org:443"}, "push.example.org:443"),
        ({"ws_advertise": "push.example.org:0"}, "push.example.org:PORT"),
        ({"ws_bind": "0.0.0.0:0", "ws_advertise": "[2001:db8::1]:0"}, "[2001:db8::1]:PORT"),
    ],
)
async def test_advertised_address_is_what_others_are_told(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    async with running_core(tmp_path, **settings) as core:
        (info,) = announced(core)
        port = core.node.addresses["ws"].rpartition(":")[2]
        assert info.addresses["ws"] == (told.replace("PORT", port),)


@pytest.mark.parametrize(("kept", "off"), [("ws", "tcp"), ("tcp", "ws")])
async def test_node_without_one_of_its_listeners_serves_by_the_other(
    tmp_path: Path, kept: str, off: str
) -> None:
    settings = {f"{off}_bind": "", f"{off}_advertise": "push.example.org:1"}
    async with running_core(tmp_path, **settings) as core:
        (info,) = announced(core)
        assert info.addresses == {kept: (core.node.addresses[kept],)}
        subscribe: Any = core.subscribe if kept == "tcp" else core.subscribe_websocket
        bob = await subscribe("bob")
        await core.push("bob", 1)
        assert (await bob.next_document()).value["msg"] == 1
        await core.node.drain(2.0)
        assert await bob.end() == End(1001, "going away")


@pytest.mark.parametrize(("granted", "configured", "capacity"), [(10, 0, 10), (10, 4, 4), (4, 10, 4)])
async def test_capacity_is_what_the_process_has_room_for_or_less(
    tmp_path: Path, granted: int, configured: int, capacity: int
) -> None:
    async with running_core(tmp_path, capacity=granted, max_connections=configured) as core:
        assert (await core.node.status()).capacity == capacity
        assert core.comet.counted("capacity") == capacity


async def test_stores_clock_is_asked_for_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "comet.clockkeeper")
    monkeypatch.setattr(comet.clockkeeper, "REFRESH_S", 0.01)
    async with running_core(tmp_path) as core:
        before = core.node._clocks.lowest()
        core.way.clock_refusals.append(StorageError("not now"))
        core.way.clock_step = 3600 * 10_000_000
        await eventually(lambda: core.node._clocks.lowest() > before + core.way.clock_step)
        assert "not refreshed" in caplog.text


# -- the end


async def test_drain_closes_the_subscribers_at_the_configured_pace_and_withdraws(tmp_path: Path) -> None:
    async with running_core(tmp_path, close_pace_per_s=100) as core:
        subscribers = [await core.subscribe(f"key-{n}") for n in range(30)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        drain = asyncio.ensure_future(core.node.drain(20.0))
        await eventually(lambda: announced(core)[0].is_draining)
        assert core.node.ready_fault() is None
        ends: list[float] = []

        async def see_off(subscriber: Any) -> None:
            assert await subscriber.end() == End(1001, "going away")
            ends.append(loop.time() - began)
            await subscriber.close()

        await asyncio.gather(*map(see_off, subscribers), drain)
        # 29 intervals of 10 ms. Not from the first end on, which may be read late.
        assert ends[-1] > 0.28
        assert announced(core) == []
        assert core.comet.counted("closes_total", "draining") == 30


async def test_drain_is_bounded_when_the_store_does_not_answer(tmp_path: Path) -> None:
    async with running_core(tmp_path, linger_s=0.1) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        push = core.push("bob", 1, expire_s=600)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await core.node.drain(0.8)
        assert loop.time() - began > 0.5
        assert await bob.end() == End(1001, "going away")
        assert [failure.code for failure in (await push).failed] == ["in_doubt"]
        # What the store was asked for it does all the same.
        gate.set()
        await eventually_told(lambda: stored_count(core))


async def stored_count(core: Core) -> int:
    return (await core.way.inspect(BOB)).messages


async def test_subscriber_that_comes_while_the_node_drains_is_sent_elsewhere(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        late = await Peer.connect(core.comet.tcp)
        await eventually(lambda: core.comet.open_sockets == 1)
        drain = asyncio.ensure_future(core.node.drain(5.0))
        await eventually(lambda: core.comet.is_draining)
        await late.send(b"*3\r\n$3\r\nsub\r\n$3\r\nbob\r\n$2\r\n30\r\n")
        assert await late.read_to_end() in (b"-c\r\n", b"-n\r\n")
        await late.close()
        await drain


async def test_stop_cuts_everything_writes_acknowledgements_and_may_be_called_again(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=60.0, linger_s=60.0) as core:
        bob = await core.subscribe("bob", device="phone")
        silent = await Peer.connect(core.comet.ws)
        await eventually(lambda: core.comet.open_sockets == 2)
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await bob.next_document()
        await bob.acknowledge(mid)
        await bob.beat()
        core.way.close_gate("resuming")
        await core.subscribe("resuming", mid=0)
        await core.node.stop()
        await core.node.stop()
        assert await silent.read_to_end() == b""
        assert (await bob.end()).code == 0
        assert await core.way.store.acknowledged(BOB, "phone") == mid
        assert announced(core) == []
        assert core.comet.open_sockets == 0
        await silent.close()


async def test_port_in_use_fails_the_start_and_stop_leaves_nothing(tmp_path: Path) -> None:
    async with running_core(tmp_path / "a") as core:
        taken = f"127.0.0.1:{core.comet.tcp[1]}"
        with pytest.raises(OSError, match="in use"):
            async with running_core(tmp_path / "b", tcp_bind=taken):
                pass
        # The first one lives on.
        subscriber = await subscribe_tcp(core.comet.tcp, "bob")
        await subscriber.open()
        await subscriber.close()
