"""The registry on ZooKeeper when sessions end and answers are lost."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cluster.addresses import split_address
from cluster.registry.base import SessionState
from cluster.registry.zookeeper import ZooKeeperRegistry
from tests.cluster.registry.registries import Seen, ZooKeeperHarness, comet, message, web
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy, Way
from tests.support.zookeeper import ZooKeeper, operator

# Expiry is awaited in these; long enough for a busy machine not to expire others by the way.
SHORT_SESSION_S = 1.5

# From LOST to an entry of the new session.
ANNOUNCED_WITHIN_S = 3.0


@asynccontextmanager
async def proxied(server: ZooKeeper) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(server.address)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


def client_id(registry: ZooKeeperRegistry) -> tuple[int, bytes]:
    """What another client needs to take over a session. ZooKeeper tells nobody; only kazoo knows."""
    found: tuple[int, bytes] = registry._link._client.client_id
    return found


async def expire(registry: ZooKeeperRegistry, server: ZooKeeper) -> None:
    """End a session as ZooKeeper does when it was silent for too long."""

    def take_over_and_leave(taken: tuple[int, bytes]) -> None:
        with operator(server, taken):
            pass

    await asyncio.to_thread(take_over_and_leave, client_id(registry))


async def test_an_expired_session_is_told_first_and_announced_anew_at_once(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    registry, seen = await harness.connect(), Seen(await harness.connect())
    registration = await registry.register(comet("a"))
    await registry.register(message("m"))
    before = registration.instance
    told: list[tuple[SessionState, str, float]] = []
    loop = asyncio.get_running_loop()
    registry.watch_session(lambda state: told.append((state, registration.instance, loop.time())))

    await expire(registry, zookeeper)
    await eventually(lambda: told and told[-1][0] is SessionState.CONNECTED and registration.is_standing)
    standing_at = loop.time()

    lost = [(instance, at) for state, instance, at in told if state is SessionState.LOST]
    assert [instance for instance, _ in lost] == [before]
    assert standing_at - lost[0][1] < ANNOUNCED_WITHIN_S
    assert registration.instance != before
    await eventually(lambda: sorted(seen.names) == ["a", "m"] and before not in seen.last.instances)


async def test_the_weight_that_an_operator_wrote_outlives_the_session(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    registry, seen = await harness.connect(), Seen(await harness.connect())
    registration = await registry.register(comet("a"))
    before = registration.instance
    with operator(zookeeper) as zk:
        path = f"{harness.settings.comet_path}/a/0000000000"
        zk.set(path, zk.get(path)[0].replace(b'"weight":1', b'"weight":3'))
    await eventually(lambda: seen.weights == [3])
    await registry.refresh()

    await expire(registry, zookeeper)
    await eventually(lambda: registration.instance != before)
    await eventually(lambda: registration.instance in seen.last.instances)

    assert seen.weights == [3]


async def test_the_other_instance_of_a_name_follows_when_the_first_ones_session_ends(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    async with proxied(zookeeper) as proxy:
        # A process that is frozen, or cut off.
        first = await harness.connect(servers=(proxy.address,), session_timeout_s=SHORT_SESSION_S)
        seen = Seen(await harness.connect())
        one = await first.register(comet("a"))
        two = await (await harness.connect()).register(comet("a", 6971))
        await eventually(lambda: [n.instance for n in seen.last.nodes] == [one.instance, two.instance])
        before = one.instance

        proxy.drop()
        await eventually(lambda: [n.instance for n in seen.last.nodes] == [two.instance])
        assert one.instance == before
        proxy.refuse()
        proxy.heal()
        # Back as the standby of its standby.
        await eventually(lambda: [n.instance for n in seen.last.nodes] == [two.instance, one.instance])


async def test_a_registration_removes_what_its_predecessor_left_behind(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    async with proxied(zookeeper) as proxy:
        # Its process is dead, its session is not yet.
        dead = await harness.connect(servers=(proxy.address,))
        seen = Seen(await harness.connect())
        for info in (comet("a"), comet("b", 6971), web("w")):
            await dead.register(info)
        proxy.drop()

        registration = await (await harness.connect()).register(comet("a"))

        await eventually(lambda: registration.instance in seen.last.instances)
        assert seen.names == ["b", "w", "a"]


async def test_a_short_interruption_keeps_snapshot_session_and_incarnation(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cluster.registry")
    async with proxied(zookeeper) as proxy:
        registry = await harness.connect(servers=(proxy.address,))
        seen = Seen(registry)
        other = await harness.connect()
        registration = await registry.register(comet("a"))
        await other.register(comet("b", 6971))
        await eventually(lambda: seen.names == ["a", "b"])
        before, told = registration.instance, len(seen.snapshots)

        proxy.refuse()
        await eventually(lambda: registry.session is SessionState.SUSPENDED)
        # What changes meanwhile is seen afterwards.
        await other.register(comet("c", 6972))
        assert len(seen.snapshots) == told
        assert registration.is_standing
        # A drain goes on.
        await registration.update(comet("a", is_draining=True))
        proxy.heal()

        await eventually(lambda: seen.names == ["a", "b", "c"] and seen.last.nodes[0].is_draining)
        assert registration.instance == before == seen.last.nodes[0].instance
        assert SessionState.LOST not in seen.states
        lines = [r.getMessage() for r in caplog.records if "ZooKeeper is" in r.getMessage()]
        assert [line.split(":")[0].split(",")[0] for line in lines] == [
            "ZooKeeper is away",
            "ZooKeeper is to be told when it answers",
            "ZooKeeper is back",
        ]


async def test_a_creation_whose_answer_was_lost_leaves_one_entry(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    async with proxied(zookeeper) as proxy:
        registry = await harness.connect(servers=(proxy.address,))
        seen = Seen(await harness.connect())
        await eventually(lambda: registry.session is SessionState.CONNECTED)
        # The place is there, and asking for predecessors is over, when the answers stop to come.
        await (await registry.register(comet("a"))).withdraw()
        registration = await registry.register(comet("a", 6971))
        await eventually(lambda: len(seen.names) == 1)
        proxy.drop(Way.DOWN)
        with operator(zookeeper) as zk:
            zk.delete(f"{harness.settings.comet_path}/a/0000000001")
        await eventually(lambda: seen.names == [])
        # It cannot hear of it yet; a change of its own makes it look.
        updating = asyncio.create_task(registration.update(comet("a", 6971, weight=2)))
        proxy.cut()
        proxy.heal()
        await updating

        await eventually(lambda: [node.weight for node in seen.last.nodes] == [2])
        await registry.refresh()
        assert len(seen.last.instances) == 1


async def test_a_question_for_the_session_that_is_never_answered_does_not_cost_the_session(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    async with proxied(zookeeper) as proxy:
        registry = await harness.connect(
            servers=(proxy.address,), session_timeout_s=6.0, connect_timeout_s=60.0
        )
        registration = await registry.register(comet("a"))
        before = registration.instance

        proxy.refuse()
        refused_at = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() > refused_at + 1.5)
        proxy.heal()
        # A server that is just starting does so.
        proxy.drop(Way.UP)
        await eventually(lambda: proxy.lost_bytes > 0)
        proxy.heal()
        await eventually(lambda: registry.session is SessionState.CONNECTED)
        await registry.refresh()
        assert (registration.instance, registration.is_standing) == (before, True)


async def test_a_session_that_broke_is_followed_by_a_new_one(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    async with garbled(zookeeper) as address:
        registry = await harness.connect(servers=(address,))
        registration = await registry.register(comet("a"))

        assert registration.is_standing
        assert any("the session with ZooKeeper broke" in record.getMessage() for record in caplog.records)
        await harness.close()


@asynccontextmanager
async def garbled(server: ZooKeeper) -> AsyncIterator[str]:
    """An address that leads to ZooKeeper, but for the first who connects: he gets an answer to nothing."""
    host, port = split_address(server.address)
    connections = 0
    pipes: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.readexactly(44)
            # A session, then an answer with a number that no request had.
            writer.write(struct.pack(">iiiqi16s?", 37, 0, 10_000, 1234, 16, b"p" * 16, False))
            writer.write(struct.pack(">iiqi", 16, 99, 1, 0))
            await reader.read()
            writer.close()
            return
        to_reader, to_writer = await asyncio.open_connection(host, port)
        pipes.add(asyncio.ensure_future(pipe(reader, to_writer)))
        pipes.add(asyncio.ensure_future(pipe(to_reader, writer)))

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    bound = listener.sockets[0].getsockname()
    try:
        yield f"{bound[0]}:{bound[1]}"
    finally:
        listener.close()
        await asyncio.gather(*pipes, return_exceptions=True)
