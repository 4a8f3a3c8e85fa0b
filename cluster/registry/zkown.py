"""The znode that stands for one instance: made, looked at, written, removed.

Knows what is there, as far as ZooKeeper has told. Whether it should be there, and
what it is to say, is decided in zkentry.py, whose task is the only one that asks for
these steps, one after the other. A step that raises UnavailableError may have been done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cluster.model import NodeInfo
from cluster.registry.zklink import Link, Stat
from cluster.registry.zktree import Tree, incarnation
from cluster.registry.znodes import run_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Made:
    """The znode that stands for the instance, or stood last."""

    path: str
    czxid: int
    session_id: int


class OwnZnode:
    """What is known of it, and what it is to say."""

    def __init__(self, link: Link, tree: Tree, info: NodeInfo, text: bytes) -> None:
        """There is none yet; `text` as the attribute."""
        self._link = link
        self._tree = tree
        self._parent = tree.parent_of(info)
        self._name = info.name
        self._run = info.instance
        # What it is to say; replaced by the owner. Another object is written even when it says the same: what
        # was to be written in between may stand there, though the answer was lost.
        self.text = text
        # Of the znode that stands, or stood last; empty before there was one.
        self.incarnation = ""
        # One was asked for, and the answer did not come: it may be there.
        self.may_be_lost = False
        # It may have gone, or say nonsense: check() finds out.
        self.is_doubtful = False
        self._made: _Made | None = None
        # Text that it holds, as far as is known, or that says the same to others.
        self._written: bytes | None = None
        # Number of its last change that is known here: a later one is somebody else's.
        self._changed_at = 0

    @property
    def is_made(self) -> bool:
        """Whether there is one, as far as is known."""
        return self._made is not None

    @property
    def is_of_this_session(self) -> bool:
        """Whether there is one, and it lives as long as the session does that ZooKeeper keeps now."""
        return self._made is not None and self._made.session_id == self._link.session_id

    @property
    def is_written(self) -> bool:
        """Whether it says what it is to say, as far as is known."""
        return self._written is self.text

    def look(self) -> NodeInfo | None:
        """Compare it with the tree, which has changed: it may have become doubtful.

        Returns:
            What somebody else has written into it, once; None = nothing, or something that is to be
            written over.
        """
        made = self._made
        if made is None:
            return None
        entry = self._tree.entry(made.path)
        # A tree that was read before the entry was made has not got it: ask ZooKeeper then.
        if entry is None or entry.stat.czxid != made.czxid or entry.info is None:
            self.is_doubtful = True
        elif entry.stat.mzxid > self._changed_at and self.is_written:
            self._changed_at = entry.stat.mzxid
            return entry.info
        return None

    def take_as_written(self, text: bytes) -> None:
        """Say this from now on; what somebody else has written says the same."""
        self.text = self._written = text

    async def make(self) -> None:
        """Make it. When its place is not there, only that is made."""
        text = self.text
        self.may_be_lost = True
        path = await self._link.create_entry(self._parent, text)
        if path is None:
            self.may_be_lost = False
            await self._link.ensure(self._parent)
            return
        stat = await self._link.stat(path)
        self.may_be_lost = False
        if stat is not None:
            self._take(path, stat, text)
            log.info("announced: node=%s path=%s", self._name, path)

    async def find_lost(self) -> None:
        """Take the one whose creation was asked for, if it was made in the session that lives."""
        found = await self._link.children(self._parent)
        for name in found[0] if found is not None else ():
            path = f"{self._parent}/{name}"
            seen = await self._link.stat(path)
            if seen is None or seen.owner != self._link.session_id:
                continue
            read = await self._link.text(path)
            if read is not None and run_of(read[0]) == self._run:
                self._take(path, read[1], read[0])
        self.may_be_lost = False

    async def check(self) -> None:
        """See whether it is still there, and forget it or its text if need be."""
        made = self._made
        assert made is not None
        self.is_doubtful = False
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

    async def write(self) -> None:
        """Write what it is to say. When it has gone, it becomes doubtful."""
        made = self._made
        assert made is not None
        text = self.text
        stat = await self._link.stat(made.path)
        if stat is None or stat.czxid != made.czxid:
            self.is_doubtful = True
            return
        written = await self._link.write(made.path, text, stat.version)
        if written is not None:
            self._written = text
            self._changed_at = written.mzxid

    async def remove(self) -> None:
        """Remove it, if it is still there."""
        made = self._made
        assert made is not None
        await remove_znode(self._link, made.path, made.czxid)
        self._made = None

    def _take(self, path: str, stat: Stat, text: bytes) -> None:
        self._made = _Made(path, stat.czxid, stat.owner)
        self.incarnation = incarnation(stat)
        # The very object when it is what was to be written.
        self._written = self.text if text == self.text else text
        self._changed_at = stat.czxid
        self.is_doubtful = False


async def remove_znode(link: Link, path: str, czxid: int) -> None:
    """Delete a znode, if it is still the one that was made by this change."""
    is_removed = False
    while not is_removed:
        stat = await link.stat(path)
        if stat is None or stat.czxid != czxid:
            return
        is_removed = await link.delete(path, stat.version)
