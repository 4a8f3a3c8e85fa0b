"""Reads the store, and again while it cannot answer: its nodes may be restarted one by one.

A read changes nothing, so whatever may pass is tried again, inside the time
that one read has. Whoever gives up instead closes connections, and each of
them comes back with the same question.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cluster.errors import EnckeError

log = logging.getLogger(__name__)

# Pause before another try: by then another node may be up. Doubles up to the last.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0

_T = TypeVar("_T")


async def read_patiently(
    question: Callable[[], Awaitable[_T]],
    timeout_s: float,
    turn: contextlib.AbstractAsyncContextManager[Any] | None = None,
) -> _T:
    """The answer to a question that may be put several times.

    Args:
        timeout_s: for all tries and the pauses between them. Waiting for a turn does not count.
        turn: held during each try, and not between them, when others may have theirs.

    Cancellation: ends the question that is under way.

    Raises:
        TimeoutError: no answer in time.
        Whatever the store answers, when it will not pass or the time is over.
    """
    loop = asyncio.get_running_loop()
    time_left_s = timeout_s
    pause_s = FIRST_PAUSE_S
    while True:
        async with turn or contextlib.nullcontext():
            asked_at = loop.time()
            try:
                async with asyncio.timeout(time_left_s):
                    return await question()
            except EnckeError as error:
                time_left_s -= loop.time() - asked_at + pause_s
                if not error.is_retryable or time_left_s <= 0:
                    raise
                log.debug("read again: reason=%r", error)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LAST_PAUSE_S)
