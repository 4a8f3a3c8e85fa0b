"""Acknowledged mids on their way to the store: at most one write a second per device, and one on close.

A crash may lose the last second of them, so that a device sees messages again,
never that it misses some.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import islice

from cluster.contracts.message import MessageService
from cluster.errors import EnckeError
from cluster.model import Key, Mid
from comet.metrics import CometMetrics

log = logging.getLogger(__name__)

# Writes asked for at a time: they share the store's commits.
WRITES_IN_FLIGHT = 64
# Pause after a write that the store refused; doubles up to the last.
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0
# For what is left when the node stops: a store that is silent must not hold up the rest of the stop.
LAST_WRITES_S = 2.0
# Devices whose acknowledgement may wait to be written: clients can invent them as
# fast as they connect, and a store that is away takes none.
MAX_UNWRITTEN = 100_000


class Acknowledgements:
    """What subscribers have acknowledged and the store does not know yet."""

    def __init__(
        self,
        messages: MessageService,
        interval_s: float,
        timeout_s: float,
        metrics: CometMetrics,
        max_unwritten: int = MAX_UNWRITTEN,
    ) -> None:
        self._messages = messages
        self._metrics = metrics
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        # Key → device → highest acknowledged mid.
        self._unwritten: dict[Key, dict[str, Mid]] = {}
        # Devices in it.
        self._unwritten_count = 0
        # Those of which nothing is known but what they say.
        self._claims: set[tuple[Key, str]] = set()
        self._max_unwritten = max_unwritten
        # Lives while there is something to write.
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._stopping = asyncio.Event()
        # Some were not written in the last turn.
        self._is_failing = False
        self._pause_s = FIRST_PAUSE_S

    def take(self, key: Key, device: str, mid: Mid, *, is_claim: bool = False) -> None:
        """Remember an acknowledgement; it is written within the interval.

        One device too many is not remembered: it will be sent messages again.

        Args:
            is_claim: the device was not sent this mid here, it came with it. Where the store has
                neither messages of the key nor the device, there is nothing to be skipped or sent
                again, and it is not written: else clients could fill the store with invented keys.
        """
        devices = self._unwritten.get(key, {})
        if device not in devices:
            if self._unwritten_count >= self._max_unwritten:
                self._metrics.acknowledgements_refused.inc("full")
                return
            self._unwritten_count += 1
            if is_claim:
                self._claims.add((key, device))
        if not is_claim:
            self._claims.discard((key, device))
        self._unwritten[key] = devices
        devices[device] = max(mid, devices.get(device, mid))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_until_empty())

    def hurry(self, key: Key, device: str) -> None:
        """A connection of the device has closed: do not let its acknowledgement wait."""
        if device in self._unwritten.get(key, ()):
            self._hurry.set()

    def forget(self, key: Key) -> None:
        """The key was deleted: what is unwritten must not bring its acknowledgements back."""
        devices = self._unwritten.pop(key, {})
        self._unwritten_count -= len(devices)
        self._claims.difference_update((key, device) for device in devices)

    async def resume_point(self, key: Key, device: str) -> Mid:
        """The device's acknowledged mid, written or not; 0 = none.

        Raises:
            EnckeError: the store did not tell.
        """
        # Asked before, too: what is written while the store's answer is on its way
        # may be neither in the answer nor unwritten any more.
        before = self._unwritten_mid(key, device)
        stored = await self._messages.acknowledged(key, device)
        return max(stored, before, self._unwritten_mid(key, device))

    def _unwritten_mid(self, key: Key, device: str) -> Mid:
        return self._unwritten.get(key, {}).get(device, Mid(0))

    async def stop(self) -> None:
        """Write what is left, once, in LAST_WRITES_S."""
        self._stopping.set()
        self._hurry.set()
        if self._writer is None:
            return
        try:
            async with asyncio.timeout(LAST_WRITES_S):
                await self._writer
        except TimeoutError:
            log.warning("acknowledgements not written before the end: devices=%d", self._unwritten_count)

    async def _write_until_empty(self) -> None:
        try:
            while self._unwritten:
                await self._wait_turn()
                is_written = await self._write_all()
                if self._stopping.is_set() and not is_written:
                    return
        finally:
            self._writer = None

    async def _wait_turn(self) -> None:
        wait_s, event = self._interval_s, self._hurry
        if self._is_failing:
            # Connections that close do not hurry a store that is away.
            wait_s, event = max(wait_s, self._pause_s), self._stopping
            self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        else:
            self._pause_s = FIRST_PAUSE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await event.wait()
        self._hurry.clear()

    async def _write_all(self) -> bool:
        """Write what there is now; False when the store refused some, which stays for the next turn."""
        entries = iter([(k, d, m) for k, devices in self._unwritten.items() for d, m in devices.items()])
        failure: BaseException | None = None
        while chunk := list(islice(entries, WRITES_IN_FLIGHT)):
            results = await asyncio.gather(*(self._write(*entry) for entry in chunk), return_exceptions=True)
            failed = [key for (key, _, _), error in zip(chunk, results, strict=True) if error is not None]
            failure = next((error for error in results if error is not None), failure)
            for key in failed:
                # To the end: one server that is away does not keep the others' waiting.
                if key in self._unwritten:
                    self._unwritten[key] = self._unwritten.pop(key)
            if len(failed) == len(chunk):
                break
        self._tell(failure)
        return failure is None

    def _tell(self, failure: BaseException | None) -> None:
        """Log the beginning and the end of an episode."""
        if failure is not None and not self._is_failing:
            is_known = isinstance(failure, EnckeError | TimeoutError)
            log.warning(
                "acknowledgements not written: reason=%r", failure, exc_info=None if is_known else failure
            )
        elif failure is None and self._is_failing:
            log.info("acknowledgements are written again")
        self._is_failing = failure is not None

    async def _write(self, key: Key, device: str, mid: Mid) -> None:
        async with asyncio.timeout(self._timeout_s):
            if (key, device) in self._claims and not await self._is_of_use(key, device):
                self._metrics.acknowledgements_refused.inc("nothing_stored")
            else:
                await self._messages.acknowledge(key, device, mid)
        devices = self._unwritten.get(key)
        if devices is not None and devices.get(device) == mid:
            del devices[device]
            self._unwritten_count -= 1
            self._claims.discard((key, device))
            if not devices:
                del self._unwritten[key]

    async def _is_of_use(self, key: Key, device: str) -> bool:
        stored = await self._messages.inspect(key)
        return stored.messages > 0 or device in stored.acknowledged
