"""What is read of a key in Redis: questions of scripts.py, and what their answers mean."""

from __future__ import annotations

import logging
from typing import Any

from cluster.contracts.message import Page, Stored
from cluster.mids import STEP
from cluster.model import Key, Message, Mid
from message.storage.checks import require_key
from message.storage.clock import HeardClock
from message.storage.counters import StoreCounters
from message.storage.limits import StoreLimits
from message.storage.redis.link import RedisLink
from message.storage.redis.members import read_members
from message.storage.redis.scripts import Scripts
from message.storage.rules import last_silent_day
from message.storage.waiting import Waiting

log = logging.getLogger(__name__)


class Reads:
    """Reads over one connection. Each refuses what is no key, and more than may wait."""

    def __init__(
        self,
        link: RedisLink,
        scripts: Scripts,
        limits: StoreLimits,
        counters: StoreCounters,
        heard: HeardClock,
        waiting: Waiting,
    ) -> None:
        self._link = link
        self._scripts = scripts
        self._limits = limits
        self._counters = counters
        self._heard = heard
        self._waiting = waiting

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        """Read a page; see MessageService.load_after()."""
        # Scores are doubles, exact for our mids but not for every `after`; what is too low is left out.
        above = b"%d" % (after // STEP * STEP)
        limits = (b"%d" % max_messages, b"%d" % max_bytes)
        while True:
            clock, mark, has_more, *found = await self._ask(self._scripts.load, key, above, *limits)
            self._heard.hear(int(clock))
            messages = [m for m in self._readable(key, found, 0) if m.mid > after]
            if messages or has_more == b"0":
                return Page(messages, has_more == b"1", Mid(int(mark)), Mid(int(clock)))
            above = found[-2]

    async def acknowledged(self, key: Key, device: str) -> Mid:
        """A device's acknowledged mid; see MessageService.acknowledged()."""
        wall_s, value = await self._ask(self._scripts.acknowledged, key, device.encode())
        return self._device_mid(value, int(wall_s)) if value else Mid(0)

    async def inspect(self, key: Key) -> Stored:
        """Count what is stored for a key; see MessageService.inspect()."""
        _, wall_s, found, devices = await self._ask(self._scripts.inspect, key)
        now_s = int(wall_s)
        pairs = [(found[n + 1], found[n]) for n in range(0, len(found), 2)]
        messages = self._readable(key, [part for pair in pairs for part in pair], now_s)
        acknowledged = {
            device.decode(): mid
            for device, value in zip(devices[::2], devices[1::2], strict=True)
            if (mid := self._device_mid(value, now_s))
        }
        return Stored(
            len(messages),
            sum(len(message.payload) for message in messages),
            messages[0].mid if messages else Mid(0),
            messages[-1].mid if messages else Mid(0),
            acknowledged,
        )

    async def _ask(self, script: Any, key: Key, *arguments: bytes) -> Any:
        require_key(key)
        self._waiting.admit_read()
        try:
            bound = b"%d" % self._heard.bound()
            return await self._link.call(script, b"1", key.encode(), bound, *arguments)
        finally:
            self._waiting.end_reads(1)

    def _readable(self, key: Key, found: list[bytes], now_s: int) -> list[Message]:
        messages: list[Message] = []
        unreadable = 0
        for message in read_members(found, now_s):
            if message is None:
                unreadable += 1
            else:
                messages.append(message)
        if unreadable:
            self._counters.unreadable.value += unreadable
            log.warning("left out %d stored values that are no messages: key=%s", unreadable, key)
        return messages

    def _device_mid(self, value: bytes, now_s: int) -> Mid:
        mid, day = value.split()
        is_known = int(day) > last_silent_day(now_s, self._limits.device_memory_days)
        return Mid(int(mid)) if is_known else Mid(0)
