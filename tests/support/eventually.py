"""Wait for a condition instead of a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 20.0


async def eventually(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: it did not within the deadline.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not condition():
        assert loop.time() < end, f"{condition} did not hold within {deadline_s} s"
        await asyncio.sleep(0.002)


async def eventually_told(
    ask: Callable[[], Awaitable[T]], deadline_s: float = 30.0, story: Callable[[], object] = str
) -> T:
    """As eventually(), for what only another process knows: it is asked until it says so.

    Args:
        story: what to tell of it when it never did.

    Returns:
        The first answer that is not false.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not (answer := await ask()):
        assert loop.time() < end, f"{ask} did not tell so within {deadline_s} s {story()}"
        await asyncio.sleep(0.02)
    return answer


async def eventually_done(
    attempt: Callable[[], Awaitable[T]], failure: type[Exception], deadline_s: float = DEADLINE_S
) -> T:
    """Try again for as long as it fails in this way; what it returns at last.

    Raises:
        failure: as of the attempt that ended after the deadline.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        try:
            return await attempt()
        except failure:
            if loop.time() >= end:
                raise
        await asyncio.sleep(0.01)
