"""The store's clock for GET /time/get.

A client takes the answer for "I have seen everything until now", so it must
not be above the mid of any push that starts after it. The bound that comet
nodes keep (cluster.storeclocks.StoreClock) advances with a local clock and may
run ahead of a store whose clock is being slowed or set back; what the store
itself has said cannot, because its clock never goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.contracts.message import MessageService
from cluster.errors import EnckeError, UnavailableError
from cluster.model import Mid
from web.api.asking import StoreQuestions


class StoreTime:
    """What the store's clock said last. Asks once for all who want to know at a time."""

    def __init__(
        self,
        messages: MessageService,
        questions: StoreQuestions,
        monotonic: Callable[[], float],
        max_age_s: float = 60.0,
    ) -> None:
        """Ask `messages`.

        Args:
            max_age_s: an older answer stands in when the store cannot be asked: lower, but never wrong.
        """
        self._messages = messages
        self._questions = questions
        self._monotonic = monotonic
        self._max_age_s = max_age_s
        self._heard = Mid(0)
        self._heard_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def now(self) -> Mid:
        """The store's clock.

        Raises:
            UnavailableError: no answer, and none lately.
        """
        try:
            if self._has_fresh:
                # Nobody needs to wait for another try.
                await self._ask_together()
            else:
                # Each caller waits for another try by itself, and counts among those who do.
                await self._questions.ask(self._ask_together)
        except (EnckeError, TimeoutError) as error:
            if not self._has_fresh:
                raise UnavailableError("the store's clock is not known") from error
        return self._heard

    async def stop(self) -> None:
        """End a question that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    @property
    def _has_fresh(self) -> bool:
        """Whether what was heard last may stand in."""
        return self._heard > 0 and self._monotonic() - self._heard_at <= self._max_age_s

    async def _ask_together(self) -> None:
        """Ask once, or wait for the question that is under way."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        # Shared: one caller that goes away must not take it from the others.
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        async with asyncio.timeout_at(self._questions.deadline()):
            clock = await self._messages.clock()
        self._heard = max(self._heard, clock)
        self._heard_at = self._monotonic()

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()
