"""A ZooKeeper that is away, frozen or empty, and sessions that end, while pushes go on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.model import Key
from cluster.storering import StoreRing
from tests.cluster_e2e.six import owner_of
from tests.support.cluster import SESSION_S, Cluster, owned_by, running_cluster
from tests.support.cluster_run import ClusterRun
from tests.support.eventually import eventually
from tests.support.servers import RedisServer
from tests.support.zookeeper import ZooKeeper, operator

TWO = ("comet-1", "comet-2")
THREE = ("comet-1", "comet-2", "comet-3")
NODES = (
    ("message", "message-1"),
    ("message", "message-2"),
    ("comet", "comet-1"),
    ("comet", "comet-2"),
    ("web", "web-1"),
    ("web", "web-2"),
)
# Away for so long that every session would have ended.
AWAY_S = 2.5 * SESSION_S
# Some of a session's time is left when a busy machine has held everybody up.
LONGER_S = 2.0
# From when on a ZooKeeper that is started again lets its sessions pass until it hears its clients
# there may be seconds, on a busy machine. Who is to keep his session has so much time.
LASTING_S = 4.0
# Away for so long that even such a session would have ended.
LONG_AWAY_S = 1.25 * LASTING_S


@pytest.fixture
def fragile(tmp_path: Path, empty_redis: RedisServer) -> Iterator[Cluster]:
    """A cluster without nodes, with a ZooKeeper of its own."""
    with (
        ZooKeeper(tmp_path / "zookeeper") as zookeeper,
        running_cluster(tmp_path, zookeeper, empty_redis) as described,
    ):
        yield described


@pytest.fixture
def second_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may do anything with."""
    with RedisServer(tmp_path / "second-redis") as server:
        yield server


@pytest.fixture
def shared(tmp_path: Path, empty_redis: RedisServer, second_redis: RedisServer) -> Iterator[Cluster]:
    """As `fragile`, but two servers share the keys."""
    with (
        ZooKeeper(tmp_path / "zookeeper") as zookeeper,
        running_cluster(tmp_path, zookeeper, empty_redis, second_redis) as described,
    ):
        yield described


def keys_of_three() -> list[str]:
    return [key for name in THREE for key in owned_by(THREE, name, 2)]


async def a_third_node_takes_its_keys(run: ClusterRun) -> None:
    """Whoever joins is still noticed by everybody."""
    third = run.cluster.node("comet", "comet-3")
    await asyncio.to_thread(third.start)
    await run.wait_served_by("comet-3", keys=owned_by(THREE, "comet-3", 2))
    await run.push_on()


async def test_nobody_notices_a_zookeeper_that_is_away_for_longer_than_a_session(
    fragile: Cluster, seed: int
) -> None:
    start_with_sessions(fragile, LASTING_S)
    run = ClusterRun(fragile, keys_of_three(), seed)
    async with run.under_way():
        fragile.zookeeper.kill()
        await run.push_for(LONG_AWAY_S)
        await run.push_on()
        await asyncio.to_thread(fragile.zookeeper.start)
        await run.push_on()
        assert run.is_undisturbed(*run.keys)
        await a_third_node_takes_its_keys(run)
    assert run.failed_tries == []


async def test_a_zookeeper_that_is_frozen_for_longer_than_a_session_loses_nothing(
    fragile: Cluster, seed: int
) -> None:
    fragile.start(*NODES)
    run = ClusterRun(fragile, keys_of_three(), seed)
    async with run.under_way():
        fragile.zookeeper.freeze()
        await run.push_for(AWAY_S)
        await run.push_on()
        # Nobody was told that a session has ended: all stay where they are.
        assert run.is_undisturbed(*run.keys)
        assert run.failed_tries == []
        async with run.fault():
            fragile.zookeeper.thaw()
            # It lets the sessions of all nodes expire before it listens to them.
            await a_third_node_takes_its_keys(run)


async def test_nodes_announce_themselves_to_a_zookeeper_that_has_forgotten_everything(
    fragile: Cluster, seed: int
) -> None:
    fragile.start(*NODES)
    run = ClusterRun(fragile, keys_of_three(), seed)
    async with run.under_way():
        for _ in range(2):
            fragile.zookeeper.kill()
            await run.push_on()
            fragile.zookeeper.wipe()
            assert run.failed_tries == []
            visits = run.visit_counts()
            async with run.fault():
                await asyncio.to_thread(fragile.zookeeper.start)
                # It does not know their sessions: their keys might be anybody's by now.
                await run.wait_back(visits)
                for name in TWO:
                    # Registered anew: while ZooKeeper is away the next time, nobody could be.
                    await run.wait_served_by(name, keys=[key for key in run.keys if owner_of(key) == name])
                run.forgive()
        await a_third_node_takes_its_keys(run)


@pytest.mark.parametrize("how", ["the session expires", "somebody deletes the entry"])
async def test_a_comet_node_whose_registration_has_ended_announces_itself_anew(
    cluster: Cluster, how: str, seed: int
) -> None:
    cluster.start(*NODES)
    own = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + own, seed)
    end = expire if how == "the session expires" else delete_entry
    async with run.under_way():
        for _ in range(3):
            visits = run.visit_counts(*own)
            async with run.fault():
                await asyncio.to_thread(end, cluster, cluster.comet_entries("comet-2"))
                await run.wait_back(visits)
                await run.wait_served_by("comet-2", keys=own)
            await run.push_on()
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))
    assert {end.code for reader in run.readers for end in reader.ends} == {4001}


async def test_nobody_notices_that_the_sessions_of_message_and_web_nodes_expire(
    cluster: Cluster, seed: int
) -> None:
    cluster.start(*NODES)
    run = ClusterRun(cluster, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    async with run.under_way():
        for kind in ("message", "web"):
            for place in await asyncio.to_thread(entries, cluster, f"/{cluster.root}/{kind}"):
                await asyncio.to_thread(expire_one, cluster, place)
                await run.push_on()
    assert run.failed_tries == []
    assert run.is_undisturbed(*run.keys)


def entries(cluster: Cluster, place: str) -> list[str]:
    """Paths of what stands there."""
    with operator(cluster.zookeeper) as client:
        return [f"{place}/{name}" for name in client.get_children(place)]


def delete_entry(cluster: Cluster, place: str) -> None:
    with operator(cluster.zookeeper) as client:
        for name in client.get_children(place):
            client.delete(f"{place}/{name}")


def expire(cluster: Cluster, place: str) -> None:
    """End the sessions of what stands there; their processes are not asked."""
    for entry in entries(cluster, place):
        expire_one(cluster, entry)


def expire_one(cluster: Cluster, entry: str) -> None:
    with operator(cluster.zookeeper) as client:
        session_id = client.exists(entry).ephemeralOwner
    cluster.zookeeper.end_session(session_id)


async def test_a_comet_node_that_dies_while_zookeeper_is_away_is_replaced_when_it_is_back(
    fragile: Cluster, seed: int
) -> None:
    start_with_sessions(fragile, LASTING_S, passing=("comet-2",))
    lost = owned_by(TWO, "comet-2", 3)
    run = ClusterRun(fragile, owned_by(TWO, "comet-1", 3) + lost, seed)
    async with run.under_way():
        fragile.zookeeper.kill()
        await run.push_on()
        assert run.failed_tries == []
        async with run.fault():
            fragile.nodes["comet-2"].kill()
            await run.push_for(LONG_AWAY_S)
            await asyncio.to_thread(fragile.zookeeper.start)
            await run.wait_served_by("comet-1", keys=lost)
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))


async def test_nodes_stop_in_order_while_zookeeper_is_away(fragile: Cluster, seed: int) -> None:
    more = (("message", "message-3"), ("web", "web-3"))
    start_with_sessions(fragile, LASTING_S, *more, passing=("web-3", "message-3", "comet-2"))
    run = ClusterRun(fragile, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    leaving = [fragile.nodes.pop("web-3"), fragile.nodes["message-3"], fragile.nodes["comet-2"]]
    async with run.under_way():
        fragile.zookeeper.kill()
        async with run.fault():
            for server in leaving:
                assert await asyncio.to_thread(server.stop) == 0
            await asyncio.to_thread(fragile.zookeeper.start)
            await run.wait_served_by("comet-1")
    assert run.is_undisturbed(*owned_by(TWO, "comet-1", 3))


async def test_a_comet_node_that_nobody_answers_gives_its_keys_up_and_takes_them_back(
    fragile: Cluster, seed: int
) -> None:
    fragile.start(*NODES)
    run = ClusterRun(fragile, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    messages = [fragile.nodes[name] for name in ("message-1", "message-2")]
    async with run.under_way():
        visits = run.visit_counts()
        async with run.fault():
            fragile.zookeeper.freeze()
            for server in messages:
                server.freeze()
            await eventually(lambda: all(reader.ends for reader in run.readers))
            for server in messages:
                server.thaw()
            # The registry says nothing yet, but that nobody is fenced is enough.
            await run.wait_back(visits)
            await run.push_on()
            fragile.zookeeper.thaw()
            await run.push_on()
    assert {reader.ends[0].code for reader in run.readers} == {4001}


async def test_nobody_notices_a_zookeeper_that_is_away_while_the_store_server_of_other_keys_is_silent(
    shared: Cluster, empty_redis: RedisServer, second_redis: RedisServer, seed: int
) -> None:
    start_with_sessions(shared, LONGER_S)
    ring = StoreRing({server.url: 1 for server in (empty_redis, second_redis)})
    keys = [key for name in TWO for key in owned_by(TWO, name, 20)]
    run = ClusterRun(shared, [key for key in keys if ring.server_of(Key(key)) == empty_redis.url], seed)
    async with run.under_way():
        shared.zookeeper.kill()
        await run.push_on()
        second_redis.freeze()
        try:
            await run.push_for(2 * LONGER_S)
            await run.push_on()
        finally:
            second_redis.thaw()
    assert run.failed_tries == []
    assert run.is_undisturbed(*run.keys)


async def test_a_zookeeper_that_is_away_while_a_message_node_is_silent_disconnects_nobody(
    fragile: Cluster, seed: int
) -> None:
    # Still shorter than it takes to give a silent message node up.
    start_with_sessions(fragile, LONGER_S)
    run = ClusterRun(fragile, owned_by(TWO, "comet-1", 3) + owned_by(TWO, "comet-2", 3), seed)
    async with run.under_way():
        fragile.zookeeper.kill()
        await run.push_on()
        # Each of them is the first that somebody would ask.
        for name in ("message-1", "message-2"):
            async with run.fault():
                fragile.nodes[name].freeze()
                try:
                    # By its silence, which is later than the end of their sessions would be.
                    await eventually(lambda name=name: is_told_by_comets(fragile, name, "down"))
                finally:
                    fragile.nodes[name].thaw()
                await eventually(lambda name=name: is_told_by_comets(fragile, name, "up"))
                await run.push_on()
    assert run.is_undisturbed(*run.keys)


def is_told_by_comets(cluster: Cluster, message: str, state: str) -> bool:
    """Whether that is the last that each comet node has said of a message node."""
    host, port = cluster.nodes[message].addresses["rpc"]
    said = [re.findall(rf"peer (up|down): peer={host}:{port} ", cluster.nodes[name].log) for name in TWO]
    return all(states[-1] == state for states in said)


def start_with_sessions(
    cluster: Cluster, session_s: float, *more: tuple[str, str], passing: tuple[str, ...] = ()
) -> None:
    """Start the nodes, and more, with sessions of that length.

    Args:
        passing: names of those that are to be missed soon: theirs are as short as usual.
    """
    lengths = dict.fromkeys(passing, SESSION_S)
    cluster.start(
        others=[
            cluster.node(kind, name, session_s=lengths.get(name, session_s)) for kind, name in (*NODES, *more)
        ]
    )
