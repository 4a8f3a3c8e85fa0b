"""One instance's own entry in ZooKeeper, kept as it is to be; zkown.py has the single steps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from cluster.errors import ConfigError, UnavailableError
from cluster.model import NodeInfo
from cluster.registry.base import SessionState
from cluster.registry.config import RegistrySettings
from cluster.registry.zklink import RETRY_FIRST_S, Link
from cluster.registry.zkown import OwnZnode, remove_znode
from cluster.registry.zktree import Entry, Tree
from cluster.registry.znodes import BadZnodeError, encode_znode

log = logging.getLogger(__name__)

# update() and withdraw() wait this long for ZooKeeper: they are steps of a drain,
# which has some seconds for everything.
PATIENCE_S = 1.0

# An entry stands for so long after it was marked as draining: others who read it only when it is
# gone would take the node for dead (GET /2/admin/nodes).
MARKED_S = 0.25


# Weights that were written into entries of this process by others, in place of its own: by the run
# that announces and the weight that it asks for. They hold for as long as the process lives.
Weights = dict[tuple[str, int], int]


class ZooKeeperRegistration:
    """What one instance announces, and the task that makes it so. Implements Registration.

    The task compares what should be announced with what stands, at each change
    of the one and at each sign of a change of the other.
    """

    def __init__(
        self,
        info: NodeInfo,
        link: Link,
        tree: Tree,
        settings: RegistrySettings,
        predecessors: Callable[[NodeInfo], Awaitable[list[Entry]]],
        weights: Weights,
    ) -> None:
        """Announce nothing yet.

        Args:
            predecessors: finds the entries that an instance's earlier processes left behind.
            weights: shared by all registrations of the process.

        Raises:
            ConfigError: others could not use what is to be announced.
        """
        # Why ZooKeeper does not take what is to be announced; None = it has, or is still being asked.
        self.fault: str | None = None
        self._weights = weights
        self._info = info
        self._own = OwnZnode(link, tree, info, self._encode(info))
        self._link = link
        self._settings = settings
        self._predecessors = predecessors
        self._is_first = True
        self._is_withdrawn = False
        # Loop time before which it is not removed.
        self._stands_until = 0.0
        # Something may have to be done; nothing has to be done.
        self._wake = asyncio.Event()
        self._is_done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- for the owner of the instance

    @property
    def instance(self) -> str:
        """See Registration.instance."""
        return self._own.incarnation

    @property
    def is_standing(self) -> bool:
        """See Registration.is_standing. While ZooKeeper is away it is taken to stand."""
        is_lost = self._link.state is SessionState.LOST
        return self._own.is_of_this_session and not (self._is_withdrawn or is_lost)

    async def update(self, info: NodeInfo) -> None:
        """See Registration.update(); does nothing after withdraw()."""
        if self._is_withdrawn:
            return
        self._own.text = self._encode(info)
        self._info = info
        await self._wait_done("the new announcement")
        if info.is_draining:
            self._stands_until = asyncio.get_running_loop().time() + MARKED_S

    async def withdraw(self) -> None:
        """See Registration.withdraw(). What ZooKeeper cannot be told now it is told when it is back."""
        if self.is_standing:
            await asyncio.sleep(self._stands_until - asyncio.get_running_loop().time())
        self._is_withdrawn = True
        await self._wait_done("the withdrawal")

    # -- for the registry

    def start(self) -> None:
        """Begin to announce, and keep it so until it is withdrawn or stopped."""
        self._task = asyncio.create_task(self._keep())
        self._wake.set()

    async def wait_announced(self) -> None:
        """Wait until it stands, however long ZooKeeper is away.

        Raises:
            UnavailableError: it was stopped or withdrawn before.
        """
        while True:
            await self._is_done.wait()
            if self.is_standing:
                return
            if self.is_over:
                raise UnavailableError("the registry was stopped")
            # Done, and lost again since: look() says so in this turn of the loop.
            await asyncio.sleep(0)

    def look(self) -> None:
        """Look whether anything must be done: the session or the tree has changed."""
        others = self._own.look()
        if others is not None:
            self._heed(others.weight)
        if self._has_work():
            self._is_done.clear()
            self._wake.set()

    @property
    def is_over(self) -> bool:
        """Withdrawn, and gone."""
        return self._task is not None and self._task.done()

    def give_up(self) -> None:
        """Withdraw without waiting."""
        self._is_withdrawn = True
        self._wake.set()

    async def stop(self) -> None:
        """End the task; the entry ends with the session."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- what it says

    def _encode(self, info: NodeInfo) -> bytes:
        weight = self._weights.get((info.instance, info.weight), info.weight)
        try:
            return encode_znode(msgspec.structs.replace(info, weight=weight))
        except BadZnodeError as error:
            raise ConfigError([f"{info.kind.value} {info.name!r} cannot be announced: {error}"]) from error

    def _heed(self, weight: int) -> None:
        """Announce the weight that somebody has written, from now on; it stands already."""
        info = self._info
        if weight != self._weights.get((info.instance, info.weight), info.weight):
            log.info("somebody gave this node another weight: node=%s weight=%d", info.name, weight)
            self._weights[info.instance, info.weight] = weight
            self._own.take_as_written(self._encode(info))

    # -- its task

    async def _wait_done(self, what: str) -> None:
        self._is_done.clear()
        self._wake.set()
        if self.is_over:
            return
        if self._link.state is SessionState.CONNECTED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._is_done.wait()
                    return
        log.warning("ZooKeeper is to be told when it answers: node=%s what=%s", self._info.name, what)

    async def _keep(self) -> None:
        pause_s = 0.0
        try:
            while not self._is_withdrawn or self._own.is_made or self._own.may_be_lost:
                await self._wake.wait()
                self._wake.clear()
                if self._link.state is not SessionState.CONNECTED:
                    continue
                try:
                    await self._work()
                except UnavailableError as error:
                    self.fault = str(error)
                    if pause_s == RETRY_FIRST_S and self._link.state is SessionState.CONNECTED:
                        log.warning("not announced, trying on: node=%s reason=%s", self._info.name, error)
                    pause_s = min(max(pause_s * 2, RETRY_FIRST_S), self._settings.retry_max_s)
                    await asyncio.sleep(pause_s)
                    self._wake.set()
                    continue
                pause_s = 0.0
                self.fault = None
                if not self._has_work():
                    self._is_done.set()
        finally:
            self._is_done.set()

    def _has_work(self) -> bool:
        own = self._own
        if self._is_withdrawn:
            return own.is_made or own.may_be_lost
        if self._link.state is SessionState.LOST or not own.is_of_this_session:
            return True
        return own.is_doubtful or not own.is_written

    async def _work(self) -> None:
        """Do one thing that has to be done after the other."""
        own = self._own
        while self._has_work() and self._link.state is SessionState.CONNECTED:
            if own.is_made and not own.is_of_this_session:
                # ZooKeeper has removed it, unless it was not ZooKeeper that ended the session.
                await own.remove()
            elif own.may_be_lost:
                await own.find_lost()
            elif self._is_withdrawn:
                await own.remove()
            elif not own.is_made:
                await self._make()
            elif own.is_doubtful:
                await own.check()
            else:
                await own.write()

    async def _make(self) -> None:
        if self._is_first:
            # Its addresses are bound by this process now: nobody of its name can be behind them.
            for entry in await self._predecessors(self._info):
                log.info("removed the entry that this node left behind: path=%s", entry.path)
                await remove_znode(self._link, entry.path, entry.stat.czxid)
            self._is_first = False
        await self._own.make()
