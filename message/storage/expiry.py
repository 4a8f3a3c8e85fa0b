"""Frees what has expired, a bounded batch at a time. Reads never return it, removed or not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cluster.errors import EnckeError

log = logging.getLogger(__name__)

# Also when much is saved: removing so many takes the embedded store, or Redis, a tenth of a second.
LARGEST_BATCH = 10_000


class Expiry:
    """Calls a store's remove_expired() for as long as it runs."""

    def __init__(
        self,
        remove: Callable[[int], Awaitable[int]],
        interval_s: float,
        batch: int,
        saved: Callable[[], int] = lambda: 0,
        largest_batch: int = LARGEST_BATCH,
    ) -> None:
        """Make it; start() runs it.

        Args:
            remove: MessageStore.remove_expired.
            interval_s: pause after everything expired is gone.
            batch: rows at a time; a full batch is followed by the next one at once.
            saved: how many messages were saved so far in the same place, where saving and removing take
                turns. What is left after a full batch must not grow: the next one is twice what was saved
                meanwhile.
            largest_batch: whatever was saved.
        """
        self._remove = remove
        self._interval_s = interval_s
        self._batch = batch
        self._saved = saved
        self._largest_batch = largest_batch
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="expiry")

    async def stop(self) -> None:
        """End the task. A batch that has begun may still be removed."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        is_failing = False
        batch = self._batch
        while True:
            removed, before = 0, self._saved()
            try:
                removed = await self._remove(batch)
            except EnckeError as error:
                if not is_failing:
                    log.warning("cannot remove expired messages, trying again: reason=%s", error)
                is_failing = True
            except Exception:
                # A bug, perhaps with one row; the others must not stay for ever.
                if not is_failing:
                    log.exception("removing expired messages failed, trying again")
                is_failing = True
            else:
                if is_failing:
                    log.info("removing expired messages again")
                is_failing = False
            if removed < batch:
                await asyncio.sleep(self._interval_s)
                batch = self._batch
            else:
                batch = max(self._batch, min(2 * (self._saved() - before), self._largest_batch))
