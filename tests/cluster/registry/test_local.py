"""The registry of one machine: what is special to it (the rest is in suite.py)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from cluster.errors import UnavailableError
from cluster.registry.base import SessionState
from cluster.registry.local import LocalRegistry
from cluster.registry.localserver import MAX_UNREAD_BYTES, RegistryServer
from tests.cluster.registry.registries import LocalHarness, Seen, comet, message
from tests.support.eventually import DEADLINE_S, eventually


@pytest.fixture
async def harness() -> AsyncIterator[LocalHarness]:
    started = LocalHarness()
    yield started
    await started.close()


async def test_an_entry_ends_with_the_connection_of_its_process(harness: LocalHarness) -> None:
    mine = await harness.connect()
    seen = Seen(await harness.connect())
    first = await mine.register(comet("a"))
    await mine.register(message("m"))
    await eventually(lambda: seen.names == ["a", "m"])

    await mine.stop()

    await eventually(lambda: seen.names == [])
    assert first.instance not in seen.last.instances
    assert not first.is_standing


async def test_a_process_that_has_just_died_keeps_no_news_from_the_others(harness: LocalHarness) -> None:
    seen = Seen(await harness.connect())
    end, _ = harness.server.connect()
    end.setblocking(False)
    await asyncio.get_running_loop().sock_recv(end, 1)

    end.close()
    names = [f"c{n}" for n in range(20)]
    for name in names:
        harness.server.announce(None, comet(name))
        await asyncio.sleep(0)

    await eventually(lambda: seen.names == names)


async def test_what_is_asked_when_the_other_process_has_just_died_is_refused(harness: LocalHarness) -> None:
    end, connection = harness.server.connect()
    registry = LocalRegistry(end, 5.0)
    await registry.start()
    await harness.server.disconnect(connection)
    asked = []
    for _ in range(20):
        asked.append(asyncio.create_task(registry.refresh()))
        await asyncio.sleep(0)
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(result) for result in results} == {UnavailableError}
    await registry.stop()


async def test_who_registers_anew_is_another_incarnation(harness: LocalHarness) -> None:
    instances = set()
    for _ in range(3):
        registry = await harness.connect()
        instances.add((await registry.register(comet("a"))).instance)
        await registry.stop()
    assert len(instances) == 3


async def test_a_process_that_is_given_up_is_told_that_its_session_is_lost(harness: LocalHarness) -> None:
    end, connection = harness.server.connect()
    registry = LocalRegistry(end, 5.0)
    await registry.start()
    seen = Seen(registry)
    registration = await registry.register(comet("a"))

    await harness.server.disconnect(connection)
    await harness.server.disconnect(connection)

    assert harness.server.snapshot.nodes == ()
    await registry.wait_lost()
    assert registry.session is SessionState.LOST
    assert seen.states == [SessionState.LOST]
    assert not registration.is_standing
    # The last snapshot is still the best there is.
    assert seen.names == ["a"]
    await registration.update(comet("a"))
    await registration.withdraw()
    with pytest.raises(UnavailableError):
        await registry.refresh()
    with pytest.raises(UnavailableError):
        await registry.register(comet("a"))
    await registry.stop()


async def test_who_waits_for_a_refresh_is_told_when_the_registry_goes(harness: LocalHarness) -> None:
    end, _ = harness.server.connect()
    registry = LocalRegistry(end, 5.0)
    await registry.start()
    await registry.refresh()
    waiting = asyncio.create_task(registry.refresh())
    await asyncio.sleep(0)

    await harness.server.stop()

    with pytest.raises(UnavailableError):
        await waiting
    await registry.stop()


async def test_epochs_of_a_later_server_are_higher_and_its_incarnations_others() -> None:
    epochs, instances = [], []
    for generation in (7, 8):
        server = RegistryServer(generation)
        end, _ = server.connect()
        registry = LocalRegistry(end, 5.0)
        await registry.start()
        instances.append((await registry.register(comet("a"))).instance)
        epochs.append(server.snapshot.epoch)
        await registry.stop()
        await server.stop()
    assert epochs[0] < epochs[1]
    assert instances[0] != instances[1]


async def test_a_process_that_does_not_read_is_given_up_and_the_others_go_on(harness: LocalHarness) -> None:
    mine = await harness.connect()
    seen = Seen(await harness.connect())
    # It never starts to read.
    end, _ = harness.server.connect()
    big = comet("a", version="x" * 100_000)
    registration = await mine.register(big)
    await eventually(lambda: seen.names == ["a"])

    told = 0
    while told < 2 * MAX_UNREAD_BYTES:
        await registration.update(big)
        told += 100_000

    assert seen.names == ["a"]
    assert mine.session is SessionState.CONNECTED
    # What it would read now ends.
    await read_all(end)


async def test_a_line_that_nobody_understands_ends_the_session(harness: LocalHarness) -> None:
    end, _ = harness.server.connect()
    end.sendall(b"nonsense\n")
    await read_all(end)


async def test_nonsense_from_the_server_loses_the_session() -> None:
    mine, other = socket.socketpair()
    registry = LocalRegistry(mine, 5.0)
    await registry.start()
    other.sendall(b"nonsense\n")
    await registry.wait_lost()
    assert registry.session is SessionState.LOST
    await registry.stop()
    other.close()


async def test_a_registry_that_was_never_started_can_be_stopped() -> None:
    server = RegistryServer(1)
    end, _ = server.connect()
    await LocalRegistry(end, 5.0).stop()
    await server.stop()


async def read_all(end: socket.socket) -> None:
    """Read until the other side has closed, then close."""
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        while await loop.sock_recv(end, 1 << 20):
            pass
    end.close()
