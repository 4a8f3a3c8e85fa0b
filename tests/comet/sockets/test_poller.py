"""The poller: who is told, in what portions, and what is left when it stops."""

from __future__ import annotations

import asyncio
import os

from comet.sockets.poller import MAX_EVENTS, READABLE, Poller
from tests.comet.sockets.socketpairs import Pair, running_pairs, running_poller
from tests.support.eventually import eventually


async def test_who_was_ended_in_a_turn_is_not_told_in_it() -> None:
    with running_pairs(2) as pairs:
        first, second = pairs
        first.user.on_data = lambda _: second.transport.abort()
        second.user.on_data = lambda _: first.transport.abort()
        for pair in pairs:
            pair.peer.send(b"x")
        await eventually(lambda: sum("lost" in pair.user.told for pair in pairs) == 1)
        assert sorted(pair.user.received for pair in pairs) == [b"", b"x"]


async def test_many_that_are_ready_take_turns_with_the_loop() -> None:
    with running_pairs(MAX_EVENTS * 2 + 10) as pairs:
        served: list[int] = []
        for pair in pairs:
            pair.user.on_data = lambda data: served.append(len(data))
            pair.peer.send(b"x")
        portions: list[int] = []
        while len(served) < len(pairs):
            portions.append(len(served))
            await asyncio.sleep(0)
        assert len([portion for portion in portions if portion]) >= 2


async def test_descriptor_above_all_others_is_watched() -> None:
    masks: list[int] = []

    class Watched:
        def on_ready(self, mask: int) -> None:
            masks.append(mask)
            poller.unwatch(high)

        def abort(self) -> None:
            poller.unwatch(high)

    reading, writing = os.pipe()
    high = os.dup2(reading, 600)
    try:
        with running_poller() as poller:
            poller.watch(high, READABLE, Watched())
            os.write(writing, b"x")
            await eventually(lambda: masks == [READABLE])
    finally:
        for descriptor in (reading, writing, high):
            os.close(descriptor)


async def test_calls_of_the_next_turn_come_in_order_and_one_that_fails_does_not_stop_the_others() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told["exception"]))
    called: list[str] = []

    def fail() -> None:
        called.append("fails")
        raise ValueError

    with running_poller() as poller:
        poller.next_turn(lambda: called.append("first"))
        poller.next_turn(fail)
        poller.next_turn(lambda: poller.next_turn(lambda: called.append("last")))
        assert called == []
        await eventually(lambda: called == ["first", "fails", "last"])
    assert [type(fault) for fault in faults] == [ValueError]


async def test_stop_ends_what_is_watched_and_does_what_was_to_come() -> None:
    loop = asyncio.get_running_loop()
    poller = Poller(loop, loop.time)
    poller.start()
    pairs = [Pair(poller) for _ in range(3)]
    poller.stop()
    poller.stop()
    for pair in pairs:
        assert pair.user.told == ["made", "lost"]
        pair.peer.close()


async def test_poller_that_was_never_started_can_be_stopped() -> None:
    loop = asyncio.get_running_loop()
    Poller(loop, loop.time).stop()
