"""Closing many connections at a pace."""

from __future__ import annotations

import asyncio

import pytest

from comet.codec.protocol import CloseReason
from comet.subscribers.closing import close_paced
from comet.subscribers.connection import Connection
from tests.comet.parts import Context, make_connection
from tests.support.eventually import eventually


def connections(count: int, context: Context) -> list[Connection]:
    return [make_connection(context)[0] for _ in range(count)]


async def timed(count: int, per_s: int, within_s: float) -> float:
    """How long closing takes."""
    context = Context()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await close_paced(connections(count, context), CloseReason.MOVED, per_s, within_s)
    assert context.closes == [CloseReason.MOVED] * count
    return loop.time() - began


@pytest.mark.parametrize(("count", "per_s"), [(61, 200), (3, 10), (12, 39)])
async def test_pace_is_kept_however_slow(count: int, per_s: int) -> None:
    # The first is closed at once.
    wanted_s = (count - 1) / per_s
    took_s = await timed(count, per_s, within_s=60.0)
    assert took_s > 0.9 * wanted_s


async def test_pace_is_raised_when_it_would_take_too_long() -> None:
    assert await timed(100, per_s=1, within_s=0.3) < 1.0


async def test_without_time_all_are_closed_at_once() -> None:
    context = Context()
    await close_paced([], CloseReason.DRAINING, 1, 0.0)
    closing = close_paced(connections(100, context), CloseReason.DRAINING, 1, 0.0)
    # A coroutine that does not wait.
    with pytest.raises(StopIteration):
        closing.send(None)
    assert len(context.closes) == 100


async def test_those_not_reached_stay_open_when_it_is_cancelled() -> None:
    context = Context()
    task = asyncio.create_task(close_paced(connections(10, context), CloseReason.DRAINING, 1, 60.0))
    await eventually(lambda: context.closes)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert context.closes == [CloseReason.DRAINING]


async def test_connection_that_has_ended_meanwhile_keeps_its_own_reason() -> None:
    context = Context()
    first, second = connections(2, context)
    second.close(CloseReason.PEER_CLOSED)
    await close_paced([first, second], CloseReason.DRAINING, 1000, 1.0)
    assert context.closes == [CloseReason.PEER_CLOSED, CloseReason.DRAINING]
