"""A disk that refuses writes for moments, while pushes go on: nobody notices but the log."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator

import pytest

from tests.support.eventually import eventually
from tests.support.history import Ack, Unknown
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, Reader, in_background, stop_pushers, wait_caught_up
from tests.support.system import Server

KEYS = ["k1", "k2", "k3", "k4"]
PUSHERS = 6
EPISODES = 5
# Answers between two episodes.
FEWEST, MOST = 50, 150
# Below what the write-ahead log has after some pushes, above what the server logs.
FILE_BYTES = 64 * 1024
REFUSED = "messages are not stored"


@contextlib.contextmanager
def files_limited(server: Server) -> Iterator[None]:
    """Let the server's writes beyond FILE_BYTES of a file fail."""
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))


async def wait_refusal(server: Server, episode: int) -> None:
    """Until the disk has refused something in this episode; the first is 1."""
    await eventually(lambda: server.log.count(REFUSED) == episode)


@pytest.mark.parametrize("seed", [1])
async def test_moments_without_a_disk_fail_no_push_and_lose_and_repeat_nothing(
    own_server: Server, seed: int
) -> None:
    await asyncio.to_thread(own_server.start)
    load = Load(own_server, seed)
    readers = [Reader(load, key, "tcp" if i % 2 else "ws", f"r{i}") for i, key in enumerate(KEYS)]
    pushers = [Pusher(load, KEYS) for _ in range(PUSHERS)]

    async with in_background(load.watch_stalls, *(reader.run for reader in readers)):
        tasks = [asyncio.create_task(pusher.run()) for pusher in pushers]
        for episode in range(1, EPISODES + 1):
            await load.wait_acks(load.random.randint(FEWEST, MOST))
            with files_limited(own_server):
                await wait_refusal(own_server, episode)
        await load.wait_acks(FEWEST)
        await stop_pushers(pushers, tasks)
        await wait_caught_up(readers)
        for key in KEYS:
            await load.fetch(key)

    load.assert_sound(Rules(within_s=5.0))
    answers = [event for event in load.history.events if isinstance(event, Ack | Unknown)]
    assert all(isinstance(answer, Ack) and answer.ret == 0 for answer in answers)
    assert not any(reader.ends or reader.gaps for reader in readers)
    assert own_server.stop() == 0
