"""Asks the store, and again while no message node takes the question: they may be restarted one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.errors import DeadlinePassedError, InDoubtError, OverloadedError, UnavailableError

# Pause before another try: by then one of the nodes may be there. Doubles up to the last.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0

# Questions that wait for another try. More fail at once: while the store is away they must not
# fill the listener, which has answers that need no store.
MAX_WAITING = 256

_T = TypeVar("_T")


class StoreQuestions:
    """What a web node asks the store for its callers."""

    def __init__(self, timeout_s: float, max_waiting: int = MAX_WAITING) -> None:
        """Ask nothing yet.

        Args:
            timeout_s: how long an answer may take, all tries together.
            max_waiting: questions that are tried again at a time.
        """
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._waiting = 0

    def deadline(self) -> float:
        """When what is asked for now has to be answered, in the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    async def ask(self, question: Callable[[], Awaitable[_T]], deadline: float | None = None) -> _T:
        """The answer to a question that may be put several times.

        Not again when that would only add to what is too much already, and not what may have been done.

        Args:
            question: asks a message node, each time the one that is up then.
            deadline: of this and other questions together; None = it has the whole time.

        Cancellation: ends the question that is under way.

        Raises:
            UnavailableError: no node has taken it in time.
            Whatever the store answers.
        """
        deadline = self.deadline() if deadline is None else deadline
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
                is_late = asyncio.get_running_loop().time() + pause_s >= deadline
                if is_late or self._waiting >= self._max_waiting:
                    raise
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        self._waiting += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            self._waiting -= 1
