"""Fences comet nodes whose registration has ended, so that none can save for keys that have moved.

Every message node does this for what it sees end; the store takes it as often as it is told. What
ended while no message node was there to see it is missed in the registry when it saves, and when it,
or the node that its keys have gone to, asks whether it is fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from cluster.contracts.message import SaveBatch, SaveReply
from cluster.errors import EnckeError, NotOwnerError, UnavailableError
from cluster.model import NodeKind
from cluster.registry.base import Registry, SessionState, Snapshot

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0

# For the registry to tell who is there, while a comet node waits for an answer.
REFRESH_S = 1.0


class Fences(Protocol):
    """What is needed of a MessageStore."""

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """See MessageService.save()."""
        ...

    async def fence(self, incarnation: str) -> None:
        """See MessageStore.fence()."""
        ...

    async def is_fenced(self, incarnation: str) -> bool:
        """See MessageService.is_fenced()."""
        ...


class Fencer:
    """Follows the registry and tells the store."""

    def __init__(self, registry: Registry, store: Fences) -> None:
        """Make it; start() begins."""
        self._registry = registry
        self._store = store
        self._standing: frozenset[str] = frozenset()
        # Of nodes that save nothing.
        self._harmless: frozenset[str] = frozenset()
        # Ended, and not known to the store yet.
        self._ended: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None
        # Saves of incarnations that the last snapshot does not have.
        self._checked_saves: set[asyncio.Task[SaveReply]] = set()

    def start(self) -> None:
        """Follow from the present snapshot on."""
        self._unwatch = self._registry.watch(self._take)
        self._task = asyncio.create_task(self._run(), name="fencing")

    async def stop(self) -> None:
        """Follow no more. Saves that are being checked are cancelled: nobody hears their answers."""
        if self._unwatch is not None:
            self._unwatch()
        tasks: list[asyncio.Task[None] | asyncio.Task[SaveReply]] = [*self._checked_saves]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        """See MessageService.save(). Not for an incarnation that has ended, fenced or not.

        One that the last snapshot does not have is younger than it, or has ended, perhaps before
        this node was there: the registry is asked. While it is away nobody is kept waiting; the
        store refuses what is fenced.
        """
        if (
            not batch.incarnation
            or batch.incarnation in self._standing
            or self._registry.session is not SessionState.CONNECTED
        ):
            return self._store.save(batch)
        task = asyncio.create_task(self._check_and_save(batch))
        self._checked_saves.add(task)
        task.add_done_callback(self._checked_saves.discard)
        return task

    async def _check_and_save(self, batch: SaveBatch) -> SaveReply:
        if await self.is_fenced(batch.incarnation):
            raise NotOwnerError("the registration of the node that saves has ended")
        return await self._store.save(batch)

    async def is_fenced(self, incarnation: str) -> bool:
        """Whether a comet node's registration has ended; asked by itself or by its successors.

        See MessageService.is_fenced(). Who asks has seen the incarnation registered: one that is not
        in the registry now has ended, and is fenced before the answer says so. Nor is it told no if
        this node saw it end, and the only servers of the store that have its fence are silent.
        """
        if await self._store.is_fenced(incarnation):
            return True
        if incarnation not in self._ended and not await self._is_missing(incarnation):
            return False
        await self._store.fence(incarnation)
        log.info("fenced, it is not registered any more: node=%s", incarnation)
        return True

    async def _is_missing(self, incarnation: str) -> bool:
        """Whether the registry, asked now, does not have it; False when it cannot be asked."""
        if self._registry.session is not SessionState.CONNECTED:
            return False
        try:
            async with asyncio.timeout(REFRESH_S):
                await self._registry.refresh()
        except (UnavailableError, TimeoutError) as error:
            log.debug("the registry does not tell: reason=%r", error)
            return False
        return incarnation not in self._standing

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
                    await self._store.fence(incarnation)
                except EnckeError as error:
                    if pause_s == FIRST_PAUSE_S:
                        log.warning("not fenced, trying on: node=%s reason=%s", incarnation, error)
                    self._wake.set()
                    continue
                except Exception:
                    # A bug: nobody would be fenced any more if it ended this.
                    if pause_s == FIRST_PAUSE_S:
                        log.exception("not fenced, trying on: node=%s", incarnation)
                    self._wake.set()
                    continue
                del self._ended[incarnation]
                pause_s = FIRST_PAUSE_S
                log.info("fenced: node=%s", incarnation)
            if self._ended:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
