"""Clocks that are wrong: the wall clock steps under a running server and over a restart; time passes fast."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faketime import WallClock, fast_time
from tests.support.subscriber import End, Subscriber
from tests.support.system import Server, running


async def push_and_receive(server: Server, reader: Subscriber, count: int, expire_s: int = 600) -> list[int]:
    mids = []
    for number in range(count):
        assert await server.push("c", number, expire_s if number % 2 == 0 else 0) == 0
        document = await reader.next_document()
        assert document.value["msg"] == number
        mids.append(document.mid)
    return mids


@pytest.mark.parametrize("step", ["-1h", "+1h", "+3650d"])
async def test_clock_that_steps_during_a_run_keeps_order_and_connections(tmp_path: Path, step: str) -> None:
    clock = WallClock(tmp_path / "clock")
    with running(Server(tmp_path / "server", environ=clock.environ)) as server:
        async with server.tcp("c", version="2", mid=0) as reader:
            mids = await push_and_receive(server, reader, 6)
            clock.set(step)
            mids += await push_and_receive(server, reader, 6)
            clock.set("+0")
            mids += await push_and_receive(server, reader, 6)
            # Its heartbeat is not due yet, whatever the wall clock says.
            await reader.beat()
        assert mids == sorted(set(mids))
        told = (await server.ask("public", "GET", "/1/time/get")).json["data"]["timeid"]
        assert await server.push("c", "later", 600) == 0
        stored = await server.fetch("c", mids[-1])
        assert [m["msg"] for m in stored] == ["later"]
        assert stored[0]["mid"] >= told


@pytest.mark.parametrize("start", ["kill", "stop"])
async def test_clock_that_steps_back_over_a_restart_repeats_no_mid(tmp_path: Path, start: str) -> None:
    clock = WallClock(tmp_path / "clock")
    server = Server(tmp_path / "server", environ=clock.environ)
    with running(server):
        async with server.websocket("c", version="2", mid=0) as reader:
            mids = await push_and_receive(server, reader, 6)
        # Its last one was never stored: only the clock can keep the next above it.
        await asyncio.to_thread(server.kill if start == "kill" else server.stop)
        clock.set("-1h")
        await asyncio.to_thread(server.start)
        async with server.websocket("c", version="2", mid=mids[-2]) as reader:
            later = await push_and_receive(server, reader, 6)
        stored = [m["mid"] for m in await server.fetch("c")]
        assert stored == sorted(set(stored))
        assert later == sorted(set(later))
        assert min(later) > mids[-2]


async def test_expiry_follows_the_wall_clock_of_the_store(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    with running(Server(tmp_path / "server", environ=clock.environ)) as server:
        assert await server.push("c", "short", 600) == 0
        assert await server.push("c", "long", 7200) == 0
        clock.set("+1h")
        assert [m["msg"] for m in await server.fetch("c")] == ["long"]
        async with server.tcp("c", version="2", mid=0) as reader:
            # What has expired is not a gap.
            assert (await reader.next_document()).value["msg"] == "long"


# -- heartbeats: the shortest takes 35 s of the server's time


FACTOR = 20
# Longest time that a shared machine may stand still.
STALL_S = 15


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for which a second lasts 50 ms."""
    with running(Server(tmp_path_factory.mktemp("hasty"), environ=fast_time(FACTOR))) as started:
        yield started


@pytest.mark.parametrize(
    ("transport", "version", "end"),
    [
        ("tcp", "", End(0, "")),
        ("tcp", "2", End(4003, "no heartbeat in time")),
        ("ws", "1.0", End(1005, "")),
        ("ws", "2", End(4003, "no heartbeat in time")),
    ],
)
async def test_missing_heartbeat_ends_the_connection_after_heartbeat_and_5_seconds(
    hasty: Server, transport: str, version: str, end: End
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with hasty.subscriber(transport, f"h{version}", version=version) as reader:
        assert await reader.end() == end
        took = (loop.time() - began) * FACTOR
    assert 34 < took < 35 + STALL_S * FACTOR


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_heartbeats_keep_a_connection_beyond_its_deadline(hasty: Server, transport: str) -> None:
    loop = asyncio.get_running_loop()
    async with hasty.subscriber(transport, "kept") as reader:
        began = loop.time()
        while (loop.time() - began) * FACTOR < 80:
            await reader.beat()
            # The rhythm of heartbeats is the input here.
            await asyncio.sleep(10 / FACTOR)
        assert await hasty.push("kept", 1) == 0
        assert (await reader.next_document()).raw
