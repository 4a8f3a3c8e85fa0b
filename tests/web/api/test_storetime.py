"""web/api/storetime.py: the store's clock."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import pytest

from cluster.contracts.message import MessageService
from cluster.errors import EnckeError, StorageError, UnavailableError
from cluster.model import Mid
from tests.support.eventually import eventually
from web.api.asking import StoreQuestions
from web.api.storetime import StoreTime


class ClockOnly:
    """The clock of a store, and its accidents."""

    def __init__(self) -> None:
        self.value = Mid(800)
        self.asked = 0
        self.refusals: deque[EnckeError] = deque()
        self.gate = asyncio.Event()
        self.gate.set()

    async def clock(self) -> Mid:
        self.asked += 1
        await self.gate.wait()
        if self.refusals:
            raise self.refusals.popleft()
        return self.value


class Monotonic:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(store: ClockOnly, monotonic: Monotonic, timeout_s: float = 5.0) -> StoreTime:
    return StoreTime(cast(MessageService, store), StoreQuestions(timeout_s), monotonic, max_age_s=60)


async def test_answer_is_what_the_store_says() -> None:
    store = ClockOnly()
    time = make(store, Monotonic())
    assert await time.now() == 800
    store.value = Mid(1600)
    assert await time.now() == 1600


async def test_callers_at_a_time_share_one_question() -> None:
    store = ClockOnly()
    store.gate.clear()
    time = make(store, Monotonic())
    tasks = [asyncio.create_task(time.now()) for _ in range(5)]
    await eventually(lambda: store.asked)
    tasks[0].cancel()
    store.gate.set()
    assert await asyncio.gather(*tasks[1:]) == [800] * 4
    assert store.asked == 1
    await asyncio.gather(tasks[0], return_exceptions=True)


async def test_last_answer_stands_in_while_it_is_fresh() -> None:
    store, monotonic = ClockOnly(), Monotonic()
    time = make(store, monotonic)
    await time.now()
    store.refusals.extend([StorageError("down")] * 2)
    assert await time.now() == 800
    monotonic.now += 61
    with pytest.raises(UnavailableError):
        await time.now()


async def test_nothing_is_made_up_before_the_first_answer() -> None:
    store = ClockOnly()
    store.gate.clear()
    time = make(store, Monotonic(), timeout_s=0.01)
    with pytest.raises(UnavailableError):
        await time.now()


async def test_stop_ends_the_question() -> None:
    store = ClockOnly()
    store.gate.clear()
    time = make(store, Monotonic())
    task = asyncio.create_task(time.now())
    await eventually(lambda: store.asked)
    await time.stop()
    with pytest.raises(asyncio.CancelledError):
        await task
    await time.stop()


async def test_only_so_many_callers_wait_for_another_try() -> None:
    store = ClockOnly()
    store.gate.clear()
    questions = StoreQuestions(20.0, max_waiting=2)
    time = StoreTime(cast(MessageService, store), questions, Monotonic())
    store.refusals.append(UnavailableError("no message node is registered"))
    tasks = [asyncio.create_task(time.now()) for _ in range(5)]
    await eventually(lambda: store.asked)
    store.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[:2] == [800, 800]
    assert [type(answer) for answer in answers[2:]] == [UnavailableError] * 3
    # The refused question, and one for both who wait, or one each: as they wake.
    assert 2 <= store.asked <= 3
