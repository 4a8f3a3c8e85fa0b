"""Registry of a process that another one on the same machine has started: what that one says.

The other end is cluster/registry/localserver.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable

from cluster.errors import UnavailableError
from cluster.model import NodeInfo
from cluster.registry.base import SessionState, Snapshot
from cluster.registry.localwire import (
    Announce,
    Named,
    News,
    Present,
    Request,
    Sync,
    Synced,
    Withdraw,
    decode_news,
    encode,
    open_end,
)
from cluster.registry.watchers import Watchers

log = logging.getLogger(__name__)

# update() and withdraw() are steps of a drain; the other process is near, and may be busy.
PATIENCE_S = 1.0


class LocalRegistry:
    """Who is alive, as the starting process says. Implements Registry.

    The session is the connection, and there is only one: when it ends, the
    process that started this one has ended or has given it up. So this registry
    does not come back; whoever runs the process ends it (`wait_lost`).
    """

    def __init__(self, end: socket.socket, session_timeout_s: float) -> None:
        """Say nothing yet.

        Args:
            end: as RegistryServer.connect() made it; owned by this from now on.
            session_timeout_s: for those who measure their patience by it; entries end with the connection.
        """
        self._end = end
        self._session_timeout_s = session_timeout_s
        self._state = SessionState.LOST
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._snapshot: Snapshot | None = None
        self._watchers: Watchers[Snapshot] = Watchers()
        self._session_watchers: Watchers[SessionState] = Watchers()
        self._registrations: dict[int, LocalRegistration] = {}
        # Calls of refresh() that wait, by the number of their question.
        self._syncs: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Begin to follow.

        Raises:
            OSError: the connection cannot be used.
        """
        reader, self._writer = await open_end(self._end)
        self._state = SessionState.CONNECTED
        self._task = asyncio.create_task(self._follow(reader))

    async def stop(self) -> None:
        """End the connection, and with it what was announced. May be called without start()."""
        if self._task is None:
            self._end.close()
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._close()

    async def wait_lost(self) -> None:
        """Return when the connection has ended, but for stop()."""
        await self._lost.wait()

    @property
    def fault(self) -> None:
        """Why what is to be announced is not: there is no reason why not."""
        return

    # -- Registry

    @property
    def session(self) -> SessionState:
        """CONNECTED, then LOST for ever; never SUSPENDED."""
        return self._state

    @property
    def session_timeout_s(self) -> float:
        """As given."""
        return self._session_timeout_s

    async def register(self, info: NodeInfo) -> LocalRegistration:
        """See Registry.register().

        Raises:
            UnavailableError: the connection has ended, and does not come back.
        """
        number = next(self._numbers)
        registration = LocalRegistration(self, number, info)
        self._registrations[number] = registration
        try:
            self.say(Announce(number, info))
            await self.refresh()
        except BaseException:
            registration.give_up()
            raise
        return registration

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        """See Registry.watch()."""
        unwatch = self._watchers.add(on_change)
        if self._snapshot is not None:
            on_change(self._snapshot)
        return unwatch

    def watch_session(self, on_state: Callable[[SessionState], None]) -> Callable[[], None]:
        """See Registry.watch_session()."""
        return self._session_watchers.add(on_state)

    async def refresh(self) -> None:
        """See Registry.refresh()."""
        number = next(self._numbers)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.say(Sync(number))
        self._syncs[number] = answered
        try:
            await answered
        finally:
            self._syncs.pop(number, None)

    # -- for the registrations

    def say(self, request: Request) -> None:
        """Send a request; they are done in order.

        Raises:
            UnavailableError: the connection has ended.
        """
        # uvloop raises when a transport that has closed is written to.
        if self._writer is None or self._state is SessionState.LOST or self._writer.transport.is_closing():
            raise UnavailableError("the process that tells who is alive has gone")
        self._writer.write(encode(request))

    def forget(self, number: int) -> None:
        """A registration is over."""
        self._registrations.pop(number, None)

    # -- what is said

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._take(decode_news(line))
        except OSError as error:
            log.debug("the connection has ended: reason=%r", error)
        except ValueError as error:
            # Not understood, or longer than a line may be.
            log.error("what is said of who is alive is not understood: reason=%r", error)
        self._close()
        self._lost.set()

    def _take(self, news: News) -> None:
        match news:
            case Present(snapshot):
                self._snapshot = snapshot
                self._watchers.tell(snapshot)
            case Named(entry, instance):
                registration = self._registrations.get(entry)
                if registration is not None:
                    registration.name(instance)
            case Synced(number):
                answered = self._syncs.get(number)
                if answered is not None and not answered.done():
                    answered.set_result(None)

    def _close(self) -> None:
        if self._state is SessionState.LOST:
            return
        self._state = SessionState.LOST
        assert self._writer is not None
        self._writer.close()
        self._session_watchers.tell(SessionState.LOST)
        for answered in self._syncs.values():
            if not answered.done():
                answered.set_exception(UnavailableError("the process that tells who is alive has gone"))


class LocalRegistration:
    """An entry of a LocalRegistry. Implements Registration."""

    def __init__(self, registry: LocalRegistry, number: int, info: NodeInfo) -> None:
        self.instance = ""
        self._registry = registry
        self._number = number
        self._info = info
        self._is_withdrawn = False

    @property
    def is_standing(self) -> bool:
        """See Registration.is_standing."""
        return bool(
            self.instance and not self._is_withdrawn and self._registry.session is SessionState.CONNECTED
        )

    async def update(self, info: NodeInfo) -> None:
        """See Registration.update(); does nothing when the entry does not stand."""
        if self.is_standing:
            await self._do(Announce(self._number, info))

    async def withdraw(self) -> None:
        """See Registration.withdraw()."""
        if self._is_withdrawn:
            return
        self._is_withdrawn = True
        self._registry.forget(self._number)
        await self._do(Withdraw(self._number))

    def name(self, instance: str) -> None:
        """The entry stands."""
        self.instance = instance

    def give_up(self) -> None:
        """Withdraw without waiting."""
        self._is_withdrawn = True
        self._registry.forget(self._number)
        try:
            self._registry.say(Withdraw(self._number))
        except UnavailableError:
            log.debug("nothing to withdraw: the connection has ended")

    async def _do(self, request: Announce | Withdraw) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                self._registry.say(request)
                await self._registry.refresh()
        except (UnavailableError, TimeoutError) as error:
            # With the connection the entry has ended, too.
            log.warning("not told: node=%s reason=%r", self._info.name, error)
