"""Resuming while pushes go on: no gap, no repeat, whatever is held, trimmed or in flight meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.history_checks import Rules
from tests.support.load import Load, Pusher, Reader, in_background, stop_pushers, wait_caught_up
from tests.support.system import Server, running

KEYS = ["r1", "r2", "r3"]
TRANSPORTS = ("tcp", "ws")


class Hopper(Reader):
    """A reader that leaves after some messages and comes back, sometimes to read all of it again."""

    def __init__(self, load: Load, key: str, transport: str, name: str) -> None:
        super().__init__(load, key, transport, name)
        self._random = random.Random(name)
        self.sessions = 0
        self.starts_over = True

    async def run(self) -> None:
        """Subscribe for a while, again and again, until cancelled."""
        while True:
            goal = self.received + self._random.randint(1, 60)
            if self.starts_over and self._random.random() < 0.3:
                self.last_mid = 0
                goal += 60
            await self.session(lambda goal=goal: self.received >= goal)  # type: ignore[misc]
            self.sessions += 1


@pytest.mark.parametrize("seed", [3, 4])
async def test_subscribers_that_come_and_go_see_every_message_once(tmp_path: Path, seed: int) -> None:
    # Small pages: most of the time somebody is catching up.
    config = '[comet]\nresume_page_messages = 4\n[message]\ndurability = "os"\n'
    with running(Server(tmp_path, config=config)) as server:
        load = Load(server, seed)
        readers = [Hopper(load, key, t, f"{key}-{t}-{seed}") for key in KEYS for t in TRANSPORTS]
        pushers = [Pusher(load, KEYS) for _ in range(4)]
        async with in_background(load.watch_stalls, *(reader.run for reader in readers)):
            await push_until(load, pushers, 900)
            for reader in readers:
                reader.starts_over = False
            await wait_caught_up(list(readers))
            for key in KEYS:
                await load.fetch(key)
        load.assert_sound(Rules(within_s=5.0))
        assert sum(reader.sessions for reader in readers) > 5 * len(readers)
        assert not any(reader.gaps for reader in readers)


async def push_until(load: Load, pushers: list[Pusher], acks: int) -> None:
    tasks = [asyncio.create_task(pusher.run()) for pusher in pushers]
    await eventually(lambda: load.ack_count >= acks, 60)
    await stop_pushers(pushers, tasks)


SMALL = """
[comet]
resume_page_bytes = 4096
resume_page_messages = 5
resume_hold_bytes = 4096
unread_limit_bytes = 65_536

[message]
durability = "os"
max_messages_per_key = 20
"""


@pytest.mark.parametrize("seed", [5])
async def test_trimmed_messages_are_announced_as_gaps_and_nothing_else_is_missing(
    tmp_path: Path, seed: int
) -> None:
    with running(Server(tmp_path, config=SMALL)) as server:
        load = Load(server, seed)
        stayers = [Reader(load, key, t, f"stay-{key}-{t}") for key in KEYS for t in TRANSPORTS]
        leavers = [Reader(load, key, t, f"leave-{key}-{t}") for key in KEYS for t in TRANSPORTS]
        pushers = [Pusher(load, KEYS) for _ in range(4)]
        async with in_background(load.watch_stalls, *(reader.run for reader in stayers)):
            for _ in range(3):
                acks = load.ack_count + 200
                await asyncio.gather(
                    *(some_of(reader, 10) for reader in leavers), push_until(load, pushers, acks)
                )
                pushers = [Pusher(load, KEYS) for _ in range(4)]
        async with in_background(load.watch_stalls, *(reader.run for reader in leavers)):
            # What was trimmed will never come; what is stored must.
            stored = {key: await server.fetch(key) for key in KEYS}
            newest = {key: messages[-1]["mid"] for key, messages in stored.items()}
            await eventually(lambda: all(reader.last_mid == newest[reader.key] for reader in leavers))
            for key in KEYS:
                await load.fetch(key)
        load.assert_sound(Rules(cap=20, within_s=5.0))
        assert all(reader.gaps for reader in leavers)


async def some_of(reader: Reader, count: int) -> None:
    goal = len(reader.uids) + count
    await reader.session(lambda: len(reader.uids) >= goal)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_gap_comes_first_and_names_what_is_left(tmp_path: Path, transport: str) -> None:
    with running(Server(tmp_path, config=SMALL)) as server:
        async with server.subscriber(transport, "g", version="2") as reader:
            assert await server.push("g", "seen", 600) == 0
            last = (await reader.next_document()).mid
        for number in range(30):
            assert await server.push("g", number, 600) == 0
        stored = [message["mid"] for message in await server.fetch("g")]
        assert len(stored) == 20

        async with server.subscriber(transport, "g", version="2", mid=last) as resumed:
            first, *rest = await resumed.documents(21)
        assert first.value == {"gap": {"after": last, "before": stored[0]}}
        assert [document.mid for document in rest] == stored


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_clients_below_version_2_are_told_of_no_gap(tmp_path: Path, transport: str) -> None:
    with running(Server(tmp_path, config=SMALL)) as server:
        for number in range(30):
            assert await server.push("g1", number, 600) == 0
        async with server.subscriber(transport, "g1", version="1.0") as reader:
            await reader.beat()
            assert await server.push("g1", "live", 0) == 0
            assert (await reader.next_document()).value["msg"] == "live"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_messages_held_over_their_bound_while_catching_up_are_read_again(
    tmp_path: Path, transport: str
) -> None:
    config = SMALL.replace("= 20", "= 1000")
    with running(Server(tmp_path, config=config)) as server:
        for number in range(60):
            assert await server.push("held", {"n": number, "pad": "x" * 2000}, 600) == 0
        # A small window and no reading: it catches up only as far as the socket takes it.
        async with server.subscriber(
            transport, "held", version="2", mid=0, receive_buffer_bytes=2048
        ) as reader:
            for number in range(60, 120):
                assert await server.push("held", {"n": number, "pad": "x" * 2000}, 600) == 0
            documents = await reader.documents(120, within=30)
            assert [document.value["msg"]["n"] for document in documents] == list(range(120))
            assert await server.push("held", "live", 0) == 0
            assert (await reader.next_document()).value["msg"] == "live"
