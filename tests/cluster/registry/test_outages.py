"""The registry on a ZooKeeper that goes away, hangs, or comes back empty."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.registry.base import SessionState
from cluster.registry.zkentry import ZooKeeperRegistration
from tests.cluster.registry.registries import Seen, ZooKeeperHarness, comet
from tests.support.eventually import eventually
from tests.support.zookeeper import ZooKeeper, operator

# Expiry is awaited in these; long enough for a busy machine not to expire others by the way.
SHORT_SESSION_S = 1.5

# A silent ZooKeeper is given up after two thirds of this; turns of the loop that nothing holds up take
# milliseconds.
LONGER_SESSION_S = 4.5
TURNS = 1000


@pytest.fixture
def own_zookeeper(tmp_path: Path) -> Iterator[ZooKeeper]:
    """One that the test may kill. Not started."""
    server = ZooKeeper(tmp_path / "zookeeper")
    yield server
    server.kill()


@pytest.fixture
async def own(own_zookeeper: ZooKeeper) -> AsyncIterator[ZooKeeperHarness]:
    """Registries on that."""
    harness = ZooKeeperHarness(own_zookeeper)
    yield harness
    await harness.close()


async def test_registering_waits_for_a_zookeeper_that_is_away_at_start(
    own: ZooKeeperHarness, own_zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    registry = await own.connect()
    seen = Seen(registry)
    registering = asyncio.create_task(registry.register(comet("a")))
    await eventually(lambda: "does not answer" in caplog.text)
    assert not registering.done()
    assert seen.snapshots == []

    await asyncio.to_thread(own_zookeeper.start)
    registration = await registering

    await eventually(lambda: seen.names == ["a"])
    assert registration.is_standing
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


async def test_a_registry_stops_quickly_while_zookeeper_is_away(
    own: ZooKeeperHarness, own_zookeeper: ZooKeeper
) -> None:
    registry = await own.connect()
    registering = asyncio.create_task(registry.register(comet("a")))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await registry.stop()
        await asyncio.wait([registering])
    assert registering.exception() is not None


async def test_a_registry_stops_quickly_while_zookeeper_is_frozen(
    own: ZooKeeperHarness, own_zookeeper: ZooKeeper
) -> None:
    await asyncio.to_thread(own_zookeeper.start)
    connected = await own.connect()
    await connected.register(comet("a"))
    own_zookeeper.freeze()
    # Let in by the kernel, and never answered.
    late = await own.connect()
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(connected.stop(), late.stop())


async def test_zookeeper_killed_for_longer_than_the_session_drops_nobody(
    own: ZooKeeperHarness, own_zookeeper: ZooKeeper
) -> None:
    await asyncio.to_thread(own_zookeeper.start)
    registries = [await own.connect(session_timeout_s=SHORT_SESSION_S) for _ in range(2)]
    registrations = [await r.register(comet(f"c-{n}", 7000 + n)) for n, r in enumerate(registries)]
    seen = Seen(registries[0])
    await eventually(lambda: len(seen.names) == 2)
    told = len(seen.snapshots)

    own_zookeeper.kill()
    await eventually(lambda: registries[0].session is SessionState.SUSPENDED)
    suspended_at = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() > suspended_at + 1.3 * SHORT_SESSION_S)
    assert len(seen.snapshots) == told
    assert all(registration.is_standing for registration in registrations)

    await asyncio.to_thread(own_zookeeper.start)
    await eventually(lambda: all(r.session is SessionState.CONNECTED for r in registries))
    await registries[0].refresh()
    await eventually(lambda: sorted(seen.names) == ["c-0", "c-1"])
    _assert_rising(seen)


@pytest.mark.parametrize("ahead_ms", [0, 3_600_000])
async def test_a_zookeeper_that_was_wiped_gets_everybody_back_under_higher_epochs(
    own: ZooKeeperHarness, own_zookeeper: ZooKeeper, ahead_ms: int
) -> None:
    await asyncio.to_thread(own_zookeeper.start)
    registries = [await own.connect() for _ in range(2)]
    registrations = [await r.register(comet(f"c-{n}", 7000 + n)) for n, r in enumerate(registries)]
    seen = [Seen(registry) for registry in registries]
    await eventually(lambda: all(len(one.names) == 2 for one in seen))
    if ahead_ms:
        # As if it had been made under a clock that was ahead: the next root is made before it.
        generation = seen[0].last.epoch[0] + ahead_ms
        with operator(own_zookeeper) as zk:
            zk.set(own.settings.comet_path, b'{"generation":%d}' % generation)
        await eventually(lambda: all(one.last.epoch[0] == generation for one in seen))
    before = seen[0].last

    own_zookeeper.kill()
    own_zookeeper.wipe()
    await asyncio.to_thread(own_zookeeper.start)
    await eventually(lambda: all(_has_anew(one, registrations, before.instances) for one in seen))

    assert seen[0].last.epoch == seen[1].last.epoch > before.epoch
    for one in seen:
        _assert_rising(one)


async def test_a_frozen_zookeeper_does_not_hold_up_the_loop(
    own: ZooKeeperHarness, own_zookeeper: ZooKeeper
) -> None:
    await asyncio.to_thread(own_zookeeper.start)
    registry = await own.connect(session_timeout_s=LONGER_SESSION_S)
    registration = await registry.register(comet("a"))
    seen = Seen(registry)
    await eventually(lambda: seen.names == ["a"])

    own_zookeeper.freeze()
    updating = asyncio.create_task(registration.update(comet("a", weight=2)))
    for _ in range(TURNS):
        await asyncio.sleep(0)
    # A turn in which somebody waited for ZooKeeper would have ended when its connection was given up.
    assert registry.session is SessionState.CONNECTED
    await eventually(lambda: registry.session is SessionState.SUSPENDED)
    await updating
    own_zookeeper.thaw()

    await eventually(lambda: seen.last.nodes and seen.last.nodes[0].weight == 2)


def _has_anew(seen: Seen, registrations: list[ZooKeeperRegistration], before: frozenset[str]) -> bool:
    now = {registration.instance for registration in registrations}
    return seen.last.instances == now and not now & before


def _assert_rising(seen: Seen) -> None:
    epochs = [snapshot.epoch for snapshot in seen.snapshots]
    assert epochs == sorted(epochs)
