"""Asks for the clocks of the store's servers while no save brings them along."""

from __future__ import annotations

import asyncio
import logging
import time

from cluster.contracts.message import MessageService
from cluster.errors import EnckeError
from cluster.storeclocks import StoreClocks

log = logging.getLogger(__name__)

REFRESH_S = 5.0


class ClockKeeper:
    """Keeps the bounds of the stores' clocks fresh."""

    def __init__(self, messages: MessageService, clocks: StoreClocks, store_timeout_s: float) -> None:
        self._messages = messages
        self._clocks = clocks
        self._store_timeout_s = store_timeout_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask once, and from then on in the background.

        Raises:
            EnckeError: the store did not answer.
        """
        await self._ask()
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _ask(self) -> None:
        asked_at_ns = time.monotonic_ns()
        self._clocks.take(await self._messages.clocks(), asked_at_ns)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                async with asyncio.timeout(self._store_timeout_s):
                    await self._ask()
            except (EnckeError, TimeoutError) as error:
                log.debug("stores' clocks not refreshed: reason=%r", error)
            except Exception:
                # A bug: the bounds go on with the monotonic clock, and the next answer is heard.
                log.exception("stores' clocks not refreshed")
