"""Registry of a cluster: ephemeral znodes in ZooKeeper."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cluster.errors import ConfigError, UnavailableError
from cluster.model import NodeInfo
from cluster.registry.base import SessionState, Snapshot
from cluster.registry.config import RegistrySettings
from cluster.registry.watchers import Watchers
from cluster.registry.zkentry import Weights, ZooKeeperRegistration
from cluster.registry.zklink import RETRY_FIRST_S, Link
from cluster.registry.zktree import Entry, Tree, incarnation
from cluster.registry.znodes import is_left_behind

log = logging.getLogger(__name__)

# A ZooKeeper that does not answer at start is spoken of after this.
QUIET_START_S = 1.0


class ZooKeeperRegistry:
    """Who is alive, as ZooKeeper says. Implements Registry.

    While ZooKeeper is away the last snapshot stays, and nobody is dropped. The
    registry comes back by itself, also with a new session and to a ZooKeeper
    that has forgotten everything; it then announces its instances anew.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        """Connect to nothing yet.

        Raises:
            ConfigError: the settings contradict each other.
        """
        faults = [f"registry.{place}: {text}" for place, text in settings.faults()]
        if faults:
            raise ConfigError(faults)
        self._settings = settings
        self._link = Link(settings, self._take_state, self._take_change)
        self._tree = Tree(self._link, settings)
        self._snapshot: Snapshot | None = None
        self._watchers: Watchers[Snapshot] = Watchers()
        self._session_watchers: Watchers[SessionState] = Watchers()
        self._registrations: list[ZooKeeperRegistration] = []
        self._weights: Weights = {}
        # Callers of refresh() that the next reading answers.
        self._refreshes: list[asyncio.Future[None]] = []
        # There is something to read.
        self._wake = asyncio.Event()
        self._is_away = False
        self._quiet_start: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to connect and to follow. Does not wait: ZooKeeper may be away."""
        loop = asyncio.get_running_loop()
        self._tree.mark_all()
        self._task = asyncio.create_task(self._follow())
        self._quiet_start = loop.call_later(QUIET_START_S, self._tell_away)
        self._link.start()

    async def stop(self) -> None:
        """End the session, and with it what was announced. May be called without start()."""
        if self._quiet_start is not None:
            self._quiet_start.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(registration.stop() for registration in self._registrations))
        self._fail_refreshes("the registry was stopped")
        await self._link.stop()

    @property
    def fault(self) -> str | None:
        """Why nobody can be announced, or what is to be announced is not. None = no reason is known."""
        if self._link.state is not SessionState.CONNECTED:
            return "ZooKeeper does not answer"
        faults = (registration.fault for registration in self._registrations)
        return next((f"not announced: {fault}" for fault in faults if fault is not None), None)

    # -- Registry

    @property
    def session(self) -> SessionState:
        """See Registry.session."""
        return self._link.state

    @property
    def session_timeout_s(self) -> float:
        """As configured; ZooKeeper may round it up to its tick."""
        return self._settings.session_timeout_s

    async def register(self, info: NodeInfo) -> ZooKeeperRegistration:
        """See Registry.register()."""
        registration = ZooKeeperRegistration(
            info, self._link, self._tree, self._settings, self._predecessors, self._weights
        )
        self._registrations.append(registration)
        registration.start()
        try:
            await registration.wait_announced()
        except asyncio.CancelledError:
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
        if self._link.state is not SessionState.CONNECTED:
            raise UnavailableError("ZooKeeper is away")
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshes.append(answered)
        self._wake.set()
        await answered

    # -- what the link tells

    def _take_state(self, state: SessionState) -> None:
        if state is SessionState.CONNECTED:
            # Watches ended with the connection, or with the session before.
            self._tree.mark_all()
            self._tell_back()
        else:
            self._tell_away()
            self._fail_refreshes("ZooKeeper is away")
        self._session_watchers.tell(state)
        self._wake.set()
        for registration in self._registrations:
            registration.look()

    def _take_change(self, path: str) -> None:
        self._tree.mark(path)
        self._wake.set()

    # -- following

    async def _follow(self) -> None:
        """Read what has changed, for as long as the registry lives."""
        pause_s = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._link.state is not SessionState.CONNECTED:
                continue
            try:
                await self._read()
            except UnavailableError as error:
                log.debug("not read: reason=%s", error)
            except Exception:
                # A fault of ours: the node must go on to follow.
                log.exception("a change of the registry was not taken")
            else:
                pause_s = 0.0
                continue
            self._fail_refreshes("ZooKeeper does not answer")
            pause_s = min(max(pause_s * 2, RETRY_FIRST_S), self._settings.retry_max_s)
            await asyncio.sleep(pause_s)
            self._wake.set()

    async def _read(self) -> None:
        # Those who ask from now on may know of changes that are later than the sync.
        refreshes, self._refreshes = self._refreshes, []
        try:
            if refreshes:
                await self._link.sync(self._settings.comet_path)
            await self._tree.read_stale()
            if not await self._goes_on_upward():
                self._wake.set()
                self._refreshes += refreshes
                return
        except BaseException:
            self._refreshes += refreshes
            raise
        self._publish()
        for answered in refreshes:
            if not answered.done():
                answered.set_result(None)
        self._registrations = [one for one in self._registrations if not one.is_over]
        for registration in self._registrations:
            registration.look()

    async def _goes_on_upward(self) -> bool:
        """Whether the epoch is not below the last one; if it is, make it so and have it read again.

        It is below after ZooKeeper was wiped, or its root made anew, under a clock
        that had been set back, and after it was restored from an old copy. Without
        this every node would hold on to what it saw before.
        """
        epoch = self._tree.epoch()
        last = (0, 0) if self._snapshot is None else self._snapshot.epoch
        if epoch >= last:
            return True
        log.warning("ZooKeeper has forgotten what it knew: epoch=%s before=%s", epoch, last)
        await self._tree.raise_generation(last[0] + 1)
        return False

    def _publish(self) -> None:
        entries = list(self._tree.entries)
        snapshot = Snapshot(
            epoch=self._tree.epoch(),
            nodes=tuple(entry.info for entry in entries if entry.info is not None),
            instances=frozenset(incarnation(entry.stat) for entry in entries),
        )
        if snapshot == self._snapshot:
            return
        self._snapshot = snapshot
        self._watchers.tell(snapshot)

    async def _predecessors(self, info: NodeInfo) -> list[Entry]:
        await self.refresh()
        return [
            entry
            for entry in self._tree.entries
            if entry.kind is info.kind
            and entry.info is not None
            and entry.stat.owner != self._link.session_id
            and is_left_behind(entry.info, info)
        ]

    def _fail_refreshes(self, reason: str) -> None:
        refreshes, self._refreshes = self._refreshes, []
        for answered in refreshes:
            if not answered.done():
                answered.set_exception(UnavailableError(reason))

    # -- what an operator is told

    def _tell_away(self) -> None:
        if self._is_away or self._link.state is SessionState.CONNECTED:
            return
        self._is_away = True
        servers = ",".join(self._settings.servers)
        if self._snapshot is None:
            log.warning("ZooKeeper does not answer, waiting for it: servers=%s", servers)
        else:
            known = len(self._snapshot.nodes)
            log.warning("ZooKeeper is away, going on with what is known: servers=%s nodes=%d", servers, known)

    def _tell_back(self) -> None:
        if self._quiet_start is not None:
            self._quiet_start.cancel()
        if self._is_away:
            self._is_away = False
            log.info("ZooKeeper is back: session=%x", self._link.session_id & (2**64 - 1))
