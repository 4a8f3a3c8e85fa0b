"""Wait for a condition instead of a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

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


async def eventually_told(ask: Callable[[], Awaitable[object]], deadline_s: float = 30.0) -> None:
    """As eventually(), for what only another process knows: it is asked until it says so."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not await ask():
        assert loop.time() < end, f"{ask} did not tell so within {deadline_s} s"
        await asyncio.sleep(0.02)
