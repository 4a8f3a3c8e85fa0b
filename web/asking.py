"""Asks the store, and again while no message node takes the question: they may be restarted one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.errors import DeadlinePassedError, InDoubtError, OverloadedError, UnavailableError

# Pause before another try: by then one of the nodes may be there. Doubles up to the last.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0

_T = TypeVar("_T")


async def ask_store(question: Callable[[], Awaitable[_T]], deadline: float) -> _T:
    """The answer to a question that may be put several times.

    Not again when that would only add to what is too much already, and not what may have been done.

    Args:
        question: asks a message node, each time the one that is up then.
        deadline: in the loop's clock; for all tries together.

    Cancellation: ends the question that is under way.

    Raises:
        UnavailableError: no node has taken it in time.
        Whatever the store answers.
    """
    loop = asyncio.get_running_loop()
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await question()
        except TimeoutError:
            raise UnavailableError("the store did not answer in time") from None
        except (DeadlinePassedError, InDoubtError, OverloadedError):
            raise
        except UnavailableError:
            if loop.time() + pause_s >= deadline:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LAST_PAUSE_S)
