"""What stands in ZooKeeper under the three roots, kept up to date by watches.

::

    /gopush-cluster-comet/NODE/0000000001      data of one instance of NODE
    /gopush-cluster-message/0000000001
    /gopush-cluster-web/0000000001

Only what a watch has reported is read again, so that one change costs a few
requests and not the whole tree. It is read until two passes find the same: a
znode stays *stale* until it was looked at twice without a difference and
without news in between. When nothing is stale, all that is held here stood in
ZooKeeper at one moment, that of the last answer: ZooKeeper sends the news of a
change before any answer that shows a later one, and the link keeps that order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import msgspec

from cluster.model import Epoch, NodeInfo, NodeKind
from cluster.registry.config import RegistrySettings
from cluster.registry.sharing import Sharing
from cluster.registry.zklink import Link, Stat
from cluster.registry.znodes import MAX_ZNODE_BYTES, BadZnodeError, decode_znode

log = logging.getLogger(__name__)

# Requests on their way at a time. Each is a byte in kazoo's own socket pair,
# which is full, and would block the loop, after about 270.
MAX_REQUESTS = 64

# What is logged of a bad znode is the text of a stranger.
SHOWN_CHARS = 200

# A session id and a change number as they stand in an incarnation.
_UNSIGNED_64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance's znode."""

    path: str
    kind: NodeKind
    stat: Stat
    # What it says; None when that cannot be used.
    info: NodeInfo | None
    # What is wrong with it, or worth telling an operator.
    remark: str = ""


@dataclass(frozen=True, slots=True)
class _Directory:
    """A root, or the place of a comet node's instances."""

    names: frozenset[str]
    czxid: int
    pzxid: int
    # Comet's root only.
    generation: int = 0
    version: int = 0


def incarnation(stat: Stat) -> str:
    """Name of one entry for ever: the session that it stands with, and the change that made it.

    A session alone would not do: when somebody deletes an entry, its session makes
    another, and what is said of the first (fences) must not hold for the second.
    """
    return f"{stat.owner & _UNSIGNED_64:x}-{stat.czxid:x}"


class Tree:
    """The znodes of all instances."""

    def __init__(self, link: Link, settings: RegistrySettings) -> None:
        """Nothing is known until read_stale()."""
        self._link = link
        self._roots = {
            settings.comet_path: NodeKind.COMET,
            settings.message_path: NodeKind.MESSAGE,
            settings.web_path: NodeKind.WEB,
        }
        self._comet_root = settings.comet_path
        self._directories: dict[str, _Directory] = {}
        self._entries: dict[str, Entry] = {}
        # Entries that changed, or whose watch ended, since their text was read.
        self._unwatched: set[str] = set()
        # Paths that must be looked at (again).
        self._stale: set[str] = set()
        # Entries that were remarked on in the log: once for as long as the remark holds.
        self._remarked: set[str] = set()
        self._sharing = Sharing()

    @property
    def entries(self) -> Iterable[Entry]:
        """All entries, in order of their creation."""
        return sorted(self._entries.values(), key=lambda entry: (entry.stat.czxid, entry.path))

    def entry(self, path: str) -> Entry | None:
        """The entry at a path, if there is one."""
        return self._entries.get(path)

    def parent_of(self, info: NodeInfo) -> str:
        """Where an instance puts its entry."""
        root = next(path for path, kind in self._roots.items() if kind is info.kind)
        return f"{root}/{info.name}" if info.kind is NodeKind.COMET else root

    def mark(self, path: str) -> None:
        """A watch says that a znode has changed."""
        self._stale.add(path)
        self._unwatched.add(path)

    def mark_all(self) -> None:
        """All watches have ended."""
        self._stale.update(self._roots, self._directories, self._entries)
        self._unwatched.update(self._entries)

    async def read_stale(self) -> None:
        """Read until nothing is stale.

        Cancellation: safe; what was not read stays stale.

        Raises:
            UnavailableError: ZooKeeper is away; what was not read stays stale.
        """
        while self._stale:
            stale, self._stale = self._stale, set()
            try:
                await self._look_at_all(stale & self._roots.keys(), self._look_at_directory)
                entries = {path for path in stale if self._is_entry(path)}
                await self._look_at_all(stale - self._roots.keys() - entries, self._look_at_directory)
                await self._look_at_all(entries, self._look_at_entry)
            except BaseException:
                self._stale |= stale
                self._unwatched |= stale
                raise
        self._tell_remarks()

    def epoch(self) -> Epoch:
        """Order of the present state among all states; the same at every node that sees the same comet nodes.

        First the generation of comet's root: when it was made, in milliseconds, or a
        higher number that was written into it (see registry in zookeeper.py). So a
        ZooKeeper that was wiped and begins to count anew goes on upward. Then the
        highest number of a change: of an entry's making and writing, and of a child's
        coming or going, which the parent keeps after the child is gone. All of these
        are watched; what is not (a node directory's own text) does not count.
        """
        root = self._directories[self._comet_root]
        changes = [
            zxid
            for path, directory in self._directories.items()
            if path == self._comet_root or self._is_node(path)
            for zxid in (directory.czxid, directory.pzxid)
        ]
        changes += [entry.stat.mzxid for entry in self._entries.values() if entry.kind is NodeKind.COMET]
        return root.generation, max(changes)

    async def raise_generation(self, generation: int) -> None:
        """Write a generation into comet's root; does nothing if somebody else wrote meanwhile."""
        root = self._directories[self._comet_root]
        await self._link.write(
            self._comet_root, msgspec.json.encode({"generation": generation}), root.version
        )
        self.mark(self._comet_root)

    # -- looking

    async def _look_at_all(self, paths: set[str], look: Callable[[str], Awaitable[None]]) -> None:
        ordered = sorted(paths)
        for start in range(0, len(ordered), MAX_REQUESTS):
            looks = map(look, ordered[start : start + MAX_REQUESTS])
            for failure in await asyncio.gather(*looks, return_exceptions=True):
                if failure is not None:
                    raise failure

    async def _look_at_directory(self, path: str) -> None:
        found = await self._link.children(path)
        if found is None:
            await self._miss_directory(path)
            return
        names, stat = found
        seen = _Directory(frozenset(names), stat.czxid, stat.pzxid)
        if path == self._comet_root:
            text = await self._link.text(path)
            if text is None:
                await self._miss_directory(path)
                return
            seen = _with_generation(seen, *text)
        children = {f"{path}/{name}" for name in names}
        self._stale |= {child for child in children if not self._is_known(child)}
        known = self._directories.get(path)
        if known == seen:
            return
        if known is not None:
            for name in known.names - seen.names:
                self._forget(f"{path}/{name}")
        self._directories[path] = seen
        self._stale.add(path)

    async def _miss_directory(self, path: str) -> None:
        self._forget(path)
        if path in self._roots:
            await self._link.ensure(path)
            self._stale.add(path)
        else:
            self._stale.add(_parent(path))

    async def _look_at_entry(self, path: str) -> None:
        known = self._entries.get(path)
        stat = await self._link.stat(path)
        is_watched = known is not None and path not in self._unwatched
        if is_watched and stat is not None and known is not None and _is_same(known.stat, stat):
            return
        # Before the request: news of a change may come before its answer is looked at.
        self._unwatched.discard(path)
        entry = None if stat is None else await self._read_entry(path, stat)
        if entry is None:
            self._forget(path)
            # It may be listed still, and must not be missing from the same epoch.
            self._stale.add(_parent(path))
            return
        self._entries[path] = entry
        self._stale.add(path)

    async def _read_entry(self, path: str, stat: Stat) -> Entry | None:
        kind = self._kind_of(path)
        if stat.size_bytes > MAX_ZNODE_BYTES:
            # Not fetched: it may be megabytes, at every node.
            later = await self._link.stat(path, is_watched=True)
            remark = f"larger than {MAX_ZNODE_BYTES} bytes"
            return None if later is None else Entry(path, kind, later, None, remark)
        found = await self._link.text(path)
        if found is None:
            return None
        text, stat = found
        name = path.split("/")[-2 if kind is NodeKind.COMET else -1]
        try:
            info = decode_znode(kind, name, incarnation(stat), text)
        except BadZnodeError as error:
            return Entry(path, kind, stat, None, str(error))
        return Entry(path, kind, stat, info, "" if info.weight else "weight 0: it holds no keys")

    def _forget(self, path: str) -> None:
        self._entries.pop(path, None)
        self._unwatched.discard(path)
        self._stale.discard(path)
        directory = self._directories.pop(path, None)
        for name in directory.names if directory is not None else ():
            self._forget(f"{path}/{name}")

    # -- places

    def _kind_of(self, path: str) -> NodeKind:
        return next(kind for root, kind in self._roots.items() if path.startswith(f"{root}/"))

    def _is_node(self, path: str) -> bool:
        """Whether it is the place of a comet node's instances."""
        return _parent(path) == self._comet_root

    def _is_entry(self, path: str) -> bool:
        return path not in self._roots and not self._is_node(path)

    def _is_known(self, path: str) -> bool:
        return path in self._entries or path in self._directories

    # -- remarks

    def _tell_remarks(self) -> None:
        remarked = {path for path, entry in self._entries.items() if entry.remark}
        for path in sorted(remarked - self._remarked):
            entry = self._entries[path]
            log.warning(
                "%s entry %s: path=%s reason=%.*s",
                entry.kind.value,
                "ignored" if entry.info is None else "noted",
                path,
                SHOWN_CHARS,
                entry.remark,
            )
        self._remarked = remarked
        self._sharing.tell(
            entry.info
            for entry in self._entries.values()
            # A message node of the original has no name, and is another one after each start.
            if entry.info is not None and entry.info.name != entry.path.rpartition("/")[2]
        )


def _is_same(one: Stat, other: Stat) -> bool:
    return (one.czxid, one.mzxid) == (other.czxid, other.mzxid)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _with_generation(directory: _Directory, text: bytes, stat: Stat) -> _Directory:
    return _Directory(
        directory.names,
        directory.czxid,
        directory.pzxid,
        max(stat.ctime_ms, _written_generation(text)),
        stat.version,
    )


def _written_generation(text: bytes) -> int:
    """The generation that was written into comet's root; 0 when none was."""
    try:
        written = msgspec.json.decode(text)["generation"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, IndexError):
        return 0
    return written if type(written) is int and 0 < written < 2**63 else 0
