"""kill -9 in the middle of pushes: answered ones are there afterwards, readers that resume see each once."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.history import Fault, Unknown
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, Reader, in_background, stop_pushers, wait_caught_up
from tests.support.system import Server

KILLS = 10
KEYS = ["k1", "k2", "k3", "k4", "k5", "k6"]
PUSHERS = 6
# Answers between two kills.
FEWEST, MOST = 20, 150


async def kill_and_restart(load: Load) -> None:
    began = load.history.now()
    load.is_up.clear()
    load.server.kill()
    await asyncio.to_thread(load.server.start)
    load.is_up.set()
    load.note(Fault(began, load.history.now()))


@pytest.mark.parametrize("seed", [1])
async def test_killed_ten_times_in_the_middle_of_pushes_it_loses_and_repeats_nothing(
    own_server: Server, seed: int
) -> None:
    await asyncio.to_thread(own_server.start)
    load = Load(own_server, seed)
    readers = [Reader(load, key, "tcp" if i % 2 else "ws", f"r{i}") for i, key in enumerate([*KEYS, "k1"])]
    pushers = [Pusher(load, KEYS) for _ in range(PUSHERS)]

    async with in_background(load.watch_stalls, *(reader.run for reader in readers)):
        tasks = [asyncio.create_task(pusher.run()) for pusher in pushers]
        for _ in range(KILLS):
            await load.wait_acks(load.random.randint(FEWEST, MOST))
            await kill_and_restart(load)
            await load.ask_time()
        await stop_pushers(pushers, tasks)
        await wait_caught_up(readers)
        for key in KEYS:
            await load.fetch(key)

    load.assert_sound(Rules(within_s=5.0))
    # It was in the middle of pushes indeed (not every kill has to find one unanswered).
    assert sum(isinstance(event, Unknown) for event in load.history.events) >= KILLS // 2
    assert all(len(reader.ends) >= KILLS for reader in readers)
    assert not any(reader.gaps for reader in readers)
    assert own_server.stop() == 0
