"""One instance's own entry in ZooKeeper: made, kept, made anew, removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from cluster.errors import ConfigError, UnavailableError
from cluster.model import NodeInfo
from cluster.registry.base import SessionState
from cluster.registry.config import RegistrySettings
from cluster.registry.zklink import RETRY_FIRST_S, Link, Stat
from cluster.registry.zktree import Entry, Tree, incarnation
from cluster.registry.znodes import BadZnodeError, encode_znode, run_of

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


@dataclass(frozen=True, slots=True)
class _Made:
    """The znode that stands for the instance, or stood last."""

    path: str
    czxid: int
    session_id: int


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
        self.instance = ""
        # Why ZooKeeper does not take what is to be announced; None = it has, or is still being asked.
        self.fault: str | None = None
        self._weights = weights
        self._info = info
        self._text = self._encode(info)
        self._link = link
        self._tree = tree
        self._parent = tree.parent_of(info)
        self._settings = settings
        self._predecessors = predecessors
        self._made: _Made | None = None
        # Text that the znode holds, as far as is known, or that says the same to others.
        self._written: bytes | None = None
        # Number of the last change to the znode that is known here: a later one is somebody else's.
        self._changed_at = 0
        # A znode was asked for, and the answer did not come: it may be there.
        self._may_be_lost = False
        self._is_first = True
        self._is_doubtful = False
        self._is_withdrawn = False
        # Loop time before which it is not removed.
        self._stands_until = 0.0
        # Something may have to be done; nothing has to be done.
        self._wake = asyncio.Event()
        self._is_done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- for the owner of the instance

    @property
    def is_standing(self) -> bool:
        """See Registration.is_standing. While ZooKeeper is away it is taken to stand."""
        made = self._made
        return (
            made is not None
            and not self._is_withdrawn
            and self._link.state is not SessionState.LOST
            and made.session_id == self._link.session_id
        )

    async def update(self, info: NodeInfo) -> None:
        """See Registration.update(); does nothing after withdraw()."""
        if self._is_withdrawn:
            return
        self._text = self._encode(info)
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
        made = self._made
        if made is not None:
            entry = self._tree.entry(made.path)
            # A tree that was read before the entry was made has not got it: ask ZooKeeper then.
            if entry is None or entry.stat.czxid != made.czxid or entry.info is None:
                self._is_doubtful = True
            elif entry.stat.mzxid > self._changed_at and self._written is self._text:
                self._changed_at = entry.stat.mzxid
                self._heed(entry.info.weight)
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
            self._text = self._written = self._encode(info)

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
            while not (self._is_withdrawn and self._made is None and not self._may_be_lost):
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
        made = self._made
        if self._is_withdrawn:
            return made is not None or self._may_be_lost
        if made is None or self._link.state is SessionState.LOST or made.session_id != self._link.session_id:
            return True
        return self._is_doubtful or self._written is not self._text

    async def _work(self) -> None:
        """Do one thing that has to be done after the other."""
        while self._has_work() and self._link.state is SessionState.CONNECTED:
            made = self._made
            if made is not None and made.session_id != self._link.session_id:
                await self._leave_behind(made)
            elif self._may_be_lost:
                await self._find_lost()
            elif self._is_withdrawn and made is not None:
                await self._remove(made.path, made.czxid)
                self._made = None
            elif made is None:
                await self._make()
            elif self._is_doubtful:
                await self._check(made)
            else:
                await self._write(made)

    async def _make(self) -> None:
        if self._is_first:
            # Its addresses are bound by this process now: nobody of its name can be behind them.
            for entry in await self._predecessors(self._info):
                log.info("removed the entry that this node left behind: path=%s", entry.path)
                await self._remove(entry.path, entry.stat.czxid)
            self._is_first = False
        text = self._text
        self._may_be_lost = True
        path = await self._link.create_entry(self._parent, text)
        if path is None:
            self._may_be_lost = False
            await self._link.ensure(self._parent)
            return
        stat = await self._link.stat(path)
        self._may_be_lost = False
        if stat is not None:
            self._take(path, stat, text)
            log.info("announced: node=%s path=%s", self._info.name, path)

    async def _find_lost(self) -> None:
        """Take the znode whose creation was asked for, if it was made in the session that lives."""
        found = await self._link.children(self._parent)
        for name in found[0] if found is not None else ():
            path = f"{self._parent}/{name}"
            seen = await self._link.stat(path)
            if seen is None or seen.owner != self._link.session_id:
                continue
            read = await self._link.text(path)
            if read is not None and run_of(read[0]) == self._info.instance:
                self._take(path, read[1], read[0])
        self._may_be_lost = False

    def _take(self, path: str, stat: Stat, text: bytes) -> None:
        self._made = _Made(path, stat.czxid, stat.owner)
        self.instance = incarnation(stat)
        # The very object when it is what was to be written.
        self._written = self._text if text == self._text else text
        self._changed_at = stat.czxid
        self._is_doubtful = False

    async def _check(self, made: _Made) -> None:
        self._is_doubtful = False
        stat = await self._link.stat(made.path)
        if stat is None or stat.czxid != made.czxid:
            log.warning("somebody removed the entry of this node; announcing anew: path=%s", made.path)
            self._made = None
            return
        entry = self._tree.entry(made.path)
        if entry is not None and entry.info is None and entry.stat.mzxid == stat.mzxid:
            log.warning(
                "somebody wrote nonsense into the entry of this node; written anew: path=%s", made.path
            )
            self._written = None

    async def _write(self, made: _Made) -> None:
        text = self._text
        stat = await self._link.stat(made.path)
        if stat is None or stat.czxid != made.czxid:
            self._is_doubtful = True
            return
        written = await self._link.write(made.path, text, stat.version)
        if written is not None:
            self._written = text
            self._changed_at = written.mzxid

    async def _leave_behind(self, made: _Made) -> None:
        """Forget the entry of a session that has ended.

        ZooKeeper has removed it, unless it was not ZooKeeper that ended the session.
        """
        await self._remove(made.path, made.czxid)
        self._made = None

    async def _remove(self, path: str, czxid: int) -> None:
        """Delete a znode, if it is still the one that was made by this change."""
        is_removed = False
        while not is_removed:
            stat = await self._link.stat(path)
            if stat is None or stat.czxid != czxid:
                return
            is_removed = await self._link.delete(path, stat.version)
