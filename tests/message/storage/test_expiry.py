"""The task that removes what has expired."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import StorageError
from message.storage.expiry import Expiry
from tests.support.eventually import eventually


class Removals:
    """Answers remove() from a list, then with 0; an exception is raised."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = list(answers)
        self.limits: list[int] = []

    async def remove(self, limit: int) -> int:
        self.limits.append(limit)
        answer = self._answers.pop(0) if self._answers else 0
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_full_batches_follow_each_other_without_a_pause() -> None:
    removals = Removals(10, 10, 3)
    expiry = Expiry(removals.remove, interval_s=3600, batch=10)

    expiry.start()
    await eventually(lambda: len(removals.limits) == 3)
    await expiry.stop()

    assert removals.limits == [10, 10, 10]


async def test_batches_grow_with_what_is_saved_meanwhile_and_only_while_they_are_full() -> None:
    removals = Removals(10, 40, 20, 3)
    # Before and after each removal.
    saved = iter([0, 20, 20, 30, 30, 31, 31])
    expiry = Expiry(removals.remove, interval_s=0.001, batch=10, saved=lambda: next(saved, 31))

    expiry.start()
    await eventually(lambda: len(removals.limits) >= 5)
    await expiry.stop()

    assert removals.limits[:5] == [10, 40, 20, 10, 10]


async def test_batches_grow_up_to_a_limit() -> None:
    removals = Removals(10, 25, 3)
    saved = iter([0, 1000])
    expiry = Expiry(removals.remove, 3600, 10, lambda: next(saved, 1000), largest_batch=25)

    expiry.start()
    await eventually(lambda: len(removals.limits) == 3)
    await expiry.stop()

    assert removals.limits == [10, 25, 10]


async def test_it_looks_again_after_the_interval() -> None:
    removals = Removals(1, 1, 1)
    expiry = Expiry(removals.remove, interval_s=0.001, batch=10)

    expiry.start()
    await eventually(lambda: len(removals.limits) >= 5)
    await expiry.stop()


async def test_failures_are_tried_again_and_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "message.storage.expiry")
    removals = Removals(StorageError("disk full"), StorageError("disk full"), 1)
    expiry = Expiry(removals.remove, interval_s=0.001, batch=10)

    expiry.start()
    await eventually(lambda: len(removals.limits) >= 4)
    await expiry.stop()

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_bug_is_logged_with_its_trace_and_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    removals = Removals(TypeError("a bug"), TypeError("a bug"), 1)
    expiry = Expiry(removals.remove, interval_s=0.001, batch=10)

    expiry.start()
    await eventually(lambda: len(removals.limits) >= 4)
    await expiry.stop()

    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


async def test_stop_without_a_start_does_nothing() -> None:
    await Expiry(Removals().remove, interval_s=1, batch=1).stop()


async def test_stop_can_be_cancelled() -> None:
    is_asked, may_end = asyncio.Event(), asyncio.Event()

    async def remove(_: int) -> int:
        is_asked.set()
        try:
            await may_end.wait()
        finally:
            await may_end.wait()
        return 0

    expiry = Expiry(remove, interval_s=3600, batch=10)
    expiry.start()
    await is_asked.wait()
    stopping = asyncio.create_task(expiry.stop())
    # Cancelled while it waits for a batch that takes its time to end.
    await asyncio.sleep(0)
    stopping.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await stopping
