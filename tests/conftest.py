"""What all tests share: the product's event loop, and no task left behind."""

from __future__ import annotations

import asyncio
import inspect
import math
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

# Otherwise only test files tell what stood on both sides of an assertion. Said here, before
# any directory is collected: others than tests/message/storage take the suite's modules too.
pytest.register_assert_rewrite("tests.message.storage.store_suite", "tests.comet.comet_suite")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the product runs on."""
    return {"uvloop": _make_loop}


def _make_loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    # How long a callback takes is the machine's affair: a word about it in the log is one more than
    # tests of the log expect.
    loop.slow_callback_duration = math.inf
    return loop


@pytest.fixture(autouse=True, scope="session")
def _closed_terminal_is_told() -> None:
    """Under nohup SIGHUP is ignored, also by all whom the tests start; some are to hear it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def leaves_no_task(request: pytest.FixtureRequest) -> None:
    """Fail a coroutine test that ends with tasks still running."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_watched_tasks")


@pytest.fixture
async def _watched_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # What was cancelled or answered last may need a turn of the loop to end.
    for _ in range(10):
        left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail(f"tasks left behind: {left}")
