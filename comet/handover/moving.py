"""Closes the connections of keys that this node has lost, paced, so that they find the new owner.

The others are not touched. A key's connections are closed at its turn: after
what this node had accepted for it was saved and delivered, so that whoever
resumes elsewhere finds it in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Iterable
from functools import partial

from comet.codec.protocol import CloseReason
from comet.ownership.ownership import Holdings
from comet.pushing.push import Pusher
from comet.subscribers.connection import Connection
from comet.subscribers.hub import Hub

STEP_S = 0.05

# Keys looked up on the ring before other work of the loop: about a millisecond.
SCAN_SLICE = 256


class Mover:
    """Sends subscribers away after changes of the ring."""

    def __init__(self, hub: Hub, pusher: Pusher, per_s: int) -> None:
        """Make a mover with nothing to do; `per_s` connections are closed a second."""
        self._hub = hub
        self._pusher = pusher
        self._per_step = max(1, int(per_s * STEP_S))
        self._step_s = max(STEP_S, 1 / per_s)
        # Each is looked at: a key that was lost and came back has missed messages meanwhile.
        self._changes: deque[Holdings] = deque()
        # Connections that are to be closed, in order.
        self._leaving: dict[Connection, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        # Closings that wait for their key's turn.
        self._closing = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def leaving_count(self) -> int:
        """Connections that wait to be closed."""
        return len(self._leaving)

    def take(self, holdings: Holdings) -> None:
        """Close the connections of all keys but these."""
        if holdings.is_everything or self._is_stopped or not self._hub.channel_count:
            return
        self._changes.append(holdings)
        self._is_idle.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every connection that had to go is closed; whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()
        if self._is_stopped:
            # Whatever is left is closed by the drain.
            return not self._hub.connection_count
        return self._is_idle.is_set()

    async def stop(self) -> None:
        """Close no more. May be called more than once."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._changes or self._leaving:
                if self._changes:
                    await self._scan(self._changes.popleft())
                else:
                    self._close_some()
                    # Jittered: nodes that lose keys at one moment do not close in step.
                    await asyncio.sleep(self._step_s * random.uniform(0.5, 1.5))
        finally:
            self._task = None
            self._look_idle()

    async def _scan(self, holdings: Holdings) -> None:
        keys = self._hub.keys()
        for start in range(0, len(keys), SCAN_SLICE):
            for key in keys[start : start + SCAN_SLICE]:
                if not holdings.owns(key) and (channel := self._hub.channel(key)) is not None:
                    self._leaving.update(dict.fromkeys(channel.connections()))
            await asyncio.sleep(0)

    def _close_some(self) -> None:
        closed = 0
        while self._leaving and closed < self._per_step:
            connection = next(iter(self._leaving))
            channel = connection.channel
            # All of a key at once, if they must go: they are few, and it is one turn of the key.
            together = [connection]
            if channel is not None:
                together = [one for one in channel.connections() if one in self._leaving]
                self._closing += 1
                self._pusher.at_turn(channel.key, partial(self._close, together))
            for one in together:
                del self._leaving[one]
            closed += len(together)

    def _close(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            connection.close(CloseReason.MOVED)
        self._closing -= 1
        self._look_idle()

    def _look_idle(self) -> None:
        if self._task is None and not self._closing and not self._leaving and not self._changes:
            self._is_idle.set()
