"""SIGTERM: what was accepted is finished, subscribers are told to go elsewhere, and the exit code is 0."""

from __future__ import annotations

import asyncio

from tests.support.eventually import eventually
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, Reader, in_background, stop_pushers, wait_caught_up
from tests.support.subscriber import End
from tests.support.system import Server

KEYS = ["d1", "d2", "d3", "d4"]


async def test_sigterm_under_load_loses_no_answered_push_and_closes_with_1001(own_server: Server) -> None:
    await asyncio.to_thread(own_server.start)
    load = Load(own_server, seed=2)
    readers = [
        Reader(load, key, transport, f"{key}-{transport}") for key in KEYS for transport in ("tcp", "ws")
    ]
    pushers = [Pusher(load, KEYS, (600, 600, 0)) for _ in range(4)]
    async with in_background(load.watch_stalls, *(reader.run for reader in readers)):
        tasks = [asyncio.create_task(pusher.run()) for pusher in pushers]
        await eventually(lambda: load.ack_count >= 200)

        load.is_up.clear()
        own_server.terminate()
        assert await asyncio.to_thread(own_server.wait) == 0
        await eventually(lambda: all(reader.ends for reader in readers))
        assert {reader.ends[0].code for reader in readers} == {1001}

        await asyncio.to_thread(own_server.start)
        load.is_up.set()
        await eventually(lambda: load.ack_count >= 300)
        await stop_pushers(pushers, tasks)
        for key in KEYS:
            await load.fetch(key)
        await wait_caught_up(readers)
    load.assert_sound(Rules(within_s=5.0))


async def test_old_clients_are_closed_too_and_new_ones_are_refused(own_server: Server) -> None:
    await asyncio.to_thread(own_server.start)
    async with own_server.tcp("old") as tcp, own_server.websocket("old") as websocket:
        own_server.terminate()
        assert await tcp.end() == End(0, "")
        assert (await websocket.end()).code == 1001
        assert await asyncio.to_thread(own_server.wait) == 0


async def test_reader_that_has_stopped_does_not_hold_up_the_end(own_server: Server) -> None:
    await asyncio.to_thread(own_server.start)
    async with own_server.tcp("stuck", version="2", receive_buffer_bytes=4096):
        for _ in range(40):
            assert await own_server.push("stuck", "x" * 10_000) == 0
        own_server.terminate()
        assert await asyncio.to_thread(own_server.wait) == 0


async def test_second_signal_ends_it_at_once(own_server: Server) -> None:
    await asyncio.to_thread(own_server.start)
    async with own_server.tcp("stuck", version="2", receive_buffer_bytes=4096):
        own_server.terminate()
        await eventually(lambda: "draining" in own_server.log)
        if own_server.is_running:
            own_server.terminate()
        assert await asyncio.to_thread(own_server.wait) in (0, 128 + 15)


async def test_idle_server_ends_at_once(own_server: Server) -> None:
    await asyncio.to_thread(own_server.start)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await asyncio.to_thread(own_server.stop) == 0
    assert loop.time() - began < 7
