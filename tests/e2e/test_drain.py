"""SIGTERM: what was accepted is finished, subscribers are told to go elsewhere, and the exit code is 0."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.eventually import eventually, eventually_told
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, Reader, in_background, stop_pushers, wait_caught_up
from tests.support.subscriber import End
from tests.support.system import Server, running

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


async def test_process_with_a_delay_serves_on_while_it_is_not_ready(tmp_path: Path) -> None:
    server = Server(tmp_path, config="[process]\ndrain_delay_s = 5\n")
    await asyncio.to_thread(server.start)
    try:
        async with server.tcp("old", version="2") as old:
            server.terminate()
            await eventually_told(lambda: is_draining(server))
            async with server.websocket("new", version="2") as new:
                for subscriber, key in ((old, "old"), (new, "new")):
                    assert await server.push(key, {"to": key}) == 0
                    assert (await subscriber.next_document()).value["msg"] == {"to": key}
                assert await is_draining(server)
                assert "draining for at most" not in server.log
                assert (await old.end()).code == (await new.end()).code == 1001
        assert await asyncio.to_thread(server.wait) == 0
        assert "ERROR" not in server.log
    finally:
        server.kill()


async def test_second_signal_ends_the_delay_at_once(tmp_path: Path) -> None:
    with running(Server(tmp_path, config="[process]\ndrain_delay_s = 3600\n")) as server:
        server.terminate()
        await eventually_told(lambda: is_draining(server))
        assert await asyncio.to_thread(server.stop) == 128 + 15


async def is_draining(server: Server) -> bool:
    response = await server.ask("status", "GET", "/readyz")
    return response.status == 503 and response.body.startswith(b"draining\n")
