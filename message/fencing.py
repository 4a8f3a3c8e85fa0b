"""Fences comet nodes whose registration has ended, so that none can save for keys that have moved.

Every message node does this for what it sees end; the store takes it as often as it is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cluster.errors import EnckeError
from cluster.model import NodeKind
from cluster.registry.base import Registry, Snapshot

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0


class Fencer:
    """Follows the registry and tells the store."""

    def __init__(self, registry: Registry, fence: Callable[[str], Awaitable[None]]) -> None:
        """Make it; start() begins.

        Args:
            fence: MessageStore.fence.
        """
        self._registry = registry
        self._fence = fence
        self._standing: frozenset[str] = frozenset()
        # Of nodes that save nothing.
        self._harmless: frozenset[str] = frozenset()
        # Ended, and not known to the store yet.
        self._ended: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None

    def start(self) -> None:
        """Follow from the present snapshot on."""
        self._unwatch = self._registry.watch(self._take)
        self._task = asyncio.create_task(self._run(), name="fencing")

    async def stop(self) -> None:
        """Follow no more."""
        if self._unwatch is not None:
            self._unwatch()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _take(self, snapshot: Snapshot) -> None:
        for incarnation in sorted(self._standing - snapshot.instances - self._harmless):
            self._ended[incarnation] = None
            self._wake.set()
        self._standing = snapshot.instances
        self._harmless = frozenset(
            node.instance for node in snapshot.nodes if node.kind is not NodeKind.COMET
        )

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            for incarnation in list(self._ended):
                try:
                    await self._fence(incarnation)
                except EnckeError as error:
                    if pause_s == FIRST_PAUSE_S:
                        log.warning("not fenced, trying on: node=%s reason=%s", incarnation, error)
                    self._wake.set()
                    continue
                del self._ended[incarnation]
                pause_s = FIRST_PAUSE_S
                log.info("fenced: node=%s", incarnation)
            if self._ended:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
