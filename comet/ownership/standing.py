"""Whether this node may still act on its registration, which can end without its knowing.

A node that was stopped for a while, or is cut off from the registry, may have
lost its keys to others. The store knows: before a message node acts on the end
of a registration, it records it there as fenced. So a node that has reason to
doubt asks a message node.

While the registry is merely away, nobody can fence anybody, the answer is no,
and nobody is disconnected. But a node cannot know whether the registry is away,
or it is cut off itself: then it asks before each push that comes a moment after
the last answer. What it delivered after others have saved for its keys would get
mids above theirs, and its subscribers would not ask for those any more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from cluster.errors import EnckeError
from cluster.registry.base import Registry, SessionState
from comet.ownership.ownership import Ownership

log = logging.getLogger(__name__)

# A machine that is busy can keep this process from hearing one answer for a whole session
# timeout; not from hearing several.
MIN_UNANSWERED = 3

# While the registry is away an answer of the store holds for so long.
FRESH_S = 0.02


class Standing:
    """Watches the session and the clock; takes the keys away when others may have them."""

    def __init__(
        self,
        registry: Registry,
        ownership: Ownership,
        incarnation: Callable[[], str],
        *,
        refresh: Callable[[], Awaitable[None]],
        is_fenced: Callable[[str], Awaitable[bool]],
        renew: Callable[[], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        """Watch nothing yet.

        Args:
            incarnation: of this node's registration, as the fence names it.
            refresh: Members.refresh.
            is_fenced: MessageService.is_fenced.
            renew: registers the node anew, as another incarnation.
            on_change: called when the node has lost its keys this way.
        """
        self._registry = registry
        self._ownership = ownership
        self._incarnation = incarnation
        self._refresh = refresh
        self._is_fenced = is_fenced
        self._renew = renew
        self._on_change = on_change
        self._timeout_s = registry.session_timeout_s
        # A session ends at the earliest two thirds of its timeout after its node was stopped: the
        # registry is told of its life every third. A pause of half the timeout is noticed.
        self._doubt_s = self._timeout_s / 2
        # Monotonic seconds when the loop last ran without a pause; -inf while there is doubt.
        self._beat_at = math.inf
        # When the store, or the registry, has last told that the node stands.
        self._told_at = -math.inf
        self._is_suspended = False
        # The incarnation that has ended, as far as is known here.
        self._ended: str | None = None
        self._is_halted = False
        # Those who wait until it is known whether the keys are still this node's.
        self._waiting: list[Callable[[], None]] = []
        self._is_stopped = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Gets what ended the task, if anything but stop() did.
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] | None = None

    def start(self) -> None:
        """Watch from now on; needs a registration."""
        if self._timeout_s == math.inf:
            return
        self._unwatch = self._registry.watch_session(self._take_session)
        self._task = asyncio.create_task(self._run(), name="standing")
        self._task.add_done_callback(self._on_ended)
        self._beat_at = time.monotonic()
        self._beat()

    async def stop(self) -> None:
        """Watch no more; nobody waits any longer, nor from now on. May be called again; needs no start()."""
        self._is_stopped = True
        if self._unwatch is not None:
            self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._answer()

    def fault(self) -> str | None:
        """Why the node serves nobody, although it is registered as far as it knows. None = it serves."""
        if self._is_halted:
            return "serves nobody: neither the registry nor a message node answers"
        if self._ended is not None and self._ended == self._incarnation():
            return "serves nobody: its registration has ended"
        return None

    async def wait_failed(self) -> None:
        """Return never.

        Raises:
            Exception: a bug has ended the watching; this instance owns nothing from then on.
        """
        await asyncio.shield(self._failed)

    def is_sure(self) -> bool:
        """Whether there is no reason to doubt what Ownership says; after False comes when_sure()."""
        return time.monotonic() - self._beat_at < self._doubt_s

    def may_push_now(self) -> bool:
        """Whether it is sure, and was told so lately if the registry is away; after False comes when_sure().

        Asked with every push: 0.1 us.
        """
        now = time.monotonic()
        return now - self._beat_at < self._doubt_s and (
            not self._is_suspended or now - self._told_at < FRESH_S
        )

    def when_sure(self, call: Callable[[], None]) -> None:
        """Call once it is known, within a session timeout or so.

        Ordering: the calls are made in their order.
        """
        if self._is_stopped:
            call()
            return
        self._waiting.append(call)
        if self.is_sure():
            # What is in progress goes on meanwhile.
            self._wake.set()
        else:
            self._doubt()

    async def wait_sure(self) -> None:
        """Wait as when_sure() does."""
        known: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell() -> None:
            if not known.done():
                known.set_result(None)

        self.when_sure(tell)
        await known

    def take_refusal(self, incarnation: str) -> None:
        """The store has refused a save because this incarnation is fenced."""
        if incarnation and incarnation == self._incarnation():
            self._end("the store has it fenced")

    # -- reasons to doubt

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        if self.is_sure():
            self._beat_at = time.monotonic()
        else:
            self._doubt()
        self._timer = loop.call_later(self._timeout_s / 6, self._beat)

    def _doubt(self) -> None:
        if not self._is_doubtful:
            self._beat_at = -math.inf
            self._wake.set()

    def _take_session(self, state: SessionState) -> None:
        self._is_suspended = state is SessionState.SUSPENDED
        if state is SessionState.LOST:
            self._end("the registry has ended its session")
        else:
            self._wake.set()

    # -- asking

    @property
    def _is_doubtful(self) -> bool:
        return self._beat_at == -math.inf

    def _must_ask(self) -> bool:
        if self._is_doubtful or self._is_halted or self._waiting:
            return True
        session = self._registry.session
        if self._ended == self._incarnation():
            # It is announced anew by itself where it was the session that ended.
            return session is SessionState.CONNECTED
        return session is SessionState.SUSPENDED

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            heard_at = time.monotonic()
            unanswered = 0
            while self._must_ask():
                if not self._is_doubtful and not self._waiting:
                    await self._pause(self._timeout_s / 3)
                    if not self._must_ask():
                        break
                asked_at = time.monotonic()
                if await self._find_out():
                    heard_at = asked_at
                    unanswered = 0
                    self._go_on()
                    await self._register_anew()
                    continue
                unanswered += 1
                if unanswered >= MIN_UNANSWERED and time.monotonic() - heard_at >= self._timeout_s:
                    self._halt()
                await self._pause(self._timeout_s / 12)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
            self._wake.clear()
        except TimeoutError:
            pass

    async def _find_out(self) -> bool:
        """Ask whether this node's incarnation stands, and end it if not; False when nobody tells."""
        incarnation = self._incarnation()
        try:
            if self._registry.session is SessionState.CONNECTED:
                async with asyncio.timeout(self._timeout_s / 3):
                    await self._refresh()
                return True
        except (EnckeError, TimeoutError) as error:
            log.debug("the registry does not tell: reason=%r", error)
        except Exception:
            log.exception("the registry does not tell")
        if incarnation == self._ended:
            return True
        try:
            async with asyncio.timeout(self._timeout_s / 3):
                is_fenced = await self._is_fenced(incarnation)
        except (EnckeError, TimeoutError) as error:
            log.debug("no message node tells: reason=%r", error)
            return False
        except Exception:
            # A bug, too, is no answer: without one this ends in a halt, and not in pushes that wait for ever.
            log.exception("no message node tells")
            return False
        if is_fenced and incarnation == self._incarnation():
            self._end("the store has it fenced")
        return True

    async def _register_anew(self) -> None:
        """Where the registry still lists what the store has fenced: it was restored from an old copy, say."""
        if self._ended != self._incarnation() or self._registry.session is not SessionState.CONNECTED:
            return
        log.warning("registering anew: the registry lists what the store has fenced")
        try:
            # The registry takes its time when it goes away now, and a drain waits for this.
            async with asyncio.timeout(self._timeout_s):
                await self._renew()
        except (EnckeError, TimeoutError) as error:
            log.warning("not registered anew, trying on: reason=%r", error)
        except Exception:
            log.exception("not registered anew, trying on")

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self._failed.set_exception(error)
        # Told above; nobody may wait for it.
        self._failed.exception()
        self._ownership.halt()
        self._answer()

    # -- conclusions

    def _go_on(self) -> None:
        self._beat_at = self._told_at = time.monotonic()
        if self._is_halted:
            self._is_halted = False
            log.info("message nodes or the registry answer again: serving")
            self._ownership.go_on()
        self._answer()

    def _halt(self) -> None:
        """Nobody answers: others may own the keys, and this node could not know."""
        if not self._is_halted:
            self._is_halted = True
            log.warning("neither the registry nor a message node answers: subscribers are sent away")
            self._ownership.halt()
            self._on_change()
        self._answer()

    def _end(self, why: str) -> None:
        incarnation = self._incarnation()
        if incarnation == self._ended:
            return
        self._ended = incarnation
        self._is_halted = False
        log.warning("the registration has ended, subscribers are sent away: reason=%s", why)
        self._ownership.lose(incarnation)
        self._on_change()
        self._wake.set()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
