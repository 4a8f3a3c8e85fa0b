"""Deleting a key while it is pushed to: what was there before never comes back, what came after stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, Reader, in_background, stop_pushers
from tests.support.system import Server, running

KEYS = ["x1", "x2"]
DELETIONS = 12


@pytest.mark.parametrize("seed", [6])
async def test_deletions_between_pushes_take_what_was_before_and_nothing_else(
    tmp_path: Path, seed: int
) -> None:
    with running(Server(tmp_path, config='[message]\ndurability = "os"\n')) as server:
        load = Load(server, seed)
        readers = [Reader(load, key, t, f"{key}-{t}") for key in KEYS for t in ("tcp", "ws")]
        pushers = [Pusher(load, KEYS) for _ in range(3)]
        async with in_background(load.watch_stalls, *(reader.run for reader in readers)):
            tasks = [asyncio.create_task(pusher.run()) for pusher in pushers]
            for number in range(DELETIONS):
                await load.wait_acks(15)
                await load.delete(KEYS[number % 2])
            await load.wait_acks(15)
            await stop_pushers(pushers, tasks)
            for key in KEYS:
                await load.fetch(key)
            newest = {key: (await server.fetch(key))[-1]["mid"] for key in KEYS}
            await eventually(lambda: all(reader.last_mid == newest[reader.key] for reader in readers))
        load.assert_sound(Rules())
        ends = [end.code for reader in readers for end in reader.ends]
        assert set(ends) == {4004}
        assert len(ends) >= DELETIONS
