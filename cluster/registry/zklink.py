"""The session with ZooKeeper, for coroutines: kazoo's client, and what a coroutine may ask of it.

Everything that kazoo's thread has to tell (states of the session, watches,
answers) enters the event loop in the order in which that thread met it
(zkhandler.py). ZooKeeper sends the news of a change before any answer that shows
a later state; so does this, and the reader of the tree (zktree.py) relies on it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, make_digest_acl

from cluster.errors import UnavailableError
from cluster.registry.base import SessionState
from cluster.registry.config import RegistrySettings
from cluster.registry.zkhandler import LoopHandler, enter

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.05

# ZooKeeper may take so long to hear of the end of a session; then the connection is cut.
GOODBYE_S = 1.0


class Stat(NamedTuple):
    """What ZooKeeper knows of a znode beside its text."""

    # Number of the change that made it, that last wrote its text, and that last
    # added or removed a child.
    czxid: int
    mzxid: int
    pzxid: int
    # Unix milliseconds, by the clock of ZooKeeper's leader.
    ctime_ms: int
    # Of its text.
    version: int
    # Session that it lives and dies with; 0 = none.
    owner: int
    size_bytes: int


class Link:
    """One session after the other, for as long as it is started.

    Requests raise UnavailableError when there is no answer, whatever the reason.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        on_state: Callable[[SessionState], None],
        on_stale: Callable[[str], None],
    ) -> None:
        """Connect to nothing yet.

        Args:
            on_state: told of each change of state. Every watch has ended with SUSPENDED and LOST.
            on_stale: told the path of a watched znode that has changed.
        """
        self.state = SessionState.LOST
        # Id of the session; of the last one while there is none.
        self.session_id = 0
        self._settings = settings
        self._on_state = on_state
        self._on_stale = on_stale
        self._acl = _acl(settings.digest)
        # Both from start() on.
        self._loop: asyncio.AbstractEventLoop
        self._client: Any = None
        self._renewal: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, and go on until stop()."""
        self._loop = asyncio.get_running_loop()
        self._client = self._new_client()
        self._client.start_async()

    async def stop(self) -> None:
        """End the session, and with it its entries, if ZooKeeper can be told; join the thread."""
        client, self._client = self._client, None
        self.state = SessionState.LOST
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if client is not None:
            await asyncio.to_thread(_end, client)

    async def children(self, path: str) -> tuple[list[str], Stat] | None:
        """Names of a znode's children, watched from now; None if it is not there."""
        answer = await self._ask(
            lambda c: c.get_children_async(path, watch=self._watcher, include_data=True), NoNodeError
        )
        return None if answer is None else (answer[0], _stat(answer[1]))

    async def text(self, path: str) -> tuple[bytes, Stat] | None:
        """A znode's text, watched from now; None if it is not there."""
        answer = await self._ask(lambda c: c.get_async(path, watch=self._watcher), NoNodeError)
        return None if answer is None else (answer[0] or b"", _stat(answer[1]))

    async def stat(self, path: str, *, is_watched: bool = False) -> Stat | None:
        """Everything about a znode but its text; None if it is not there."""
        watch = self._watcher if is_watched else None
        answer = await self._ask(lambda c: c.exists_async(path, watch=watch))
        return None if answer is None else _stat(answer)

    async def ensure(self, path: str) -> None:
        """Make a lasting znode, and those above it, where they are missing."""
        await self._ask(lambda c: c.ensure_path_async(path, acl=self._acl), NodeExistsError)

    async def create_entry(self, parent: str, text: bytes) -> str | None:
        """Make a znode that lives as long as the session, numbered by ZooKeeper.

        Returns:
            Its path; None when the parent is not there.
        """
        path: str | None = await self._ask(
            lambda c: c.create_async(f"{parent}/", text, acl=self._acl, ephemeral=True, sequence=True),
            NoNodeError,
        )
        return path

    async def write(self, path: str, text: bytes, version: int) -> Stat | None:
        """Replace a znode's text, if nobody has since that version; None when it was not done."""
        answer = await self._ask(
            lambda c: c.set_async(path, text, version=version), NoNodeError, BadVersionError
        )
        return None if answer is None else _stat(answer)

    async def delete(self, path: str, version: int) -> bool:
        """Remove a znode, if nobody has written to it since that version; whether it was done."""
        answer = await self._ask(
            lambda c: c.delete_async(path, version=version), NoNodeError, BadVersionError
        )
        return answer is not None

    async def sync(self, path: str) -> None:
        """Let what follows see all that any server of the ensemble has answered before."""
        await self._ask(lambda c: c.sync_async(path), NoNodeError)

    async def _ask(self, send: Callable[[Any], Any], *nothing: type[Exception]) -> Any:
        """Send a request and wait for its answer; None instead of an error of these kinds."""
        client = self._client
        if client is None or self.state is not SessionState.CONNECTED:
            # kazoo would keep it until it is connected, which may be never.
            raise UnavailableError("ZooKeeper is away")
        answered: asyncio.Future[Any] = self._loop.create_future()
        # What it is linked to is called in the loop: see LoopHandler.
        send(client).rawlink(partial(_answer, answered))
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                return await answered
        except nothing:
            return None
        except NoAuthError as error:
            # Everybody may read: see _acl().
            raise UnavailableError("ZooKeeper does not let this node write, see registry.digest") from error
        except (KazooException, TimeoutError) as error:
            raise UnavailableError(f"ZooKeeper: {error!r}") from error

    def _new_client(self) -> Any:
        settings = self._settings
        handler = LoopHandler(
            self._loop,
            settings.connect_timeout_s,
            settings.session_timeout_s,
            lambda: client.connected,
            self._thread_ended,
        )
        client: Any = KazooClient(
            hosts=",".join(settings.servers),
            timeout=settings.session_timeout_s,
            handler=handler,
            auth_data=[("digest", settings.digest)] if settings.digest else None,
            connection_retry=KazooRetry(
                max_tries=-1,
                delay=min(RETRY_FIRST_S, settings.retry_max_s),
                max_delay=settings.retry_max_s,
                sleep_func=handler.sleep_func,
            ),
            logger=_Quiet(log, {}),
        )

        def on_state(state: str) -> None:
            # In kazoo's thread. The id is read here, where it cannot change meanwhile.
            session_id = client.client_id[0] if state == KazooState.CONNECTED else None
            # A server refuses who has seen later changes than itself, and one that was
            # wiped would do so for ever. Not to see older ones is what the sync is for.
            client.last_zxid = 0
            enter(self._loop, self._take_state, client, SessionState(state.lower()), session_id)

        client.add_listener(on_state)
        return client

    def _take_state(self, client: Any, state: SessionState, session_id: int | None) -> None:
        if client is not self._client:
            return
        if session_id is None:
            self._change_state(state)
            return
        self.session_id = session_id
        # The server may be one of the ensemble that lags behind: nothing is asked before it has caught up.
        client.sync_async("/").rawlink(partial(self._take_sync, client))

    def _take_sync(self, client: Any, result: Any) -> None:
        if client is self._client and not isinstance(result.exception, (ConnectionLoss, SessionExpiredError)):
            self._change_state(SessionState.CONNECTED)

    def _change_state(self, state: SessionState) -> None:
        self.state = state
        self._on_state(state)

    def _watcher(self, event: Any) -> None:
        """Hear of a change; one bound method for all, so that kazoo keeps it once per znode."""
        # The other events have no path: the session's, which on_state tells of.
        if event.path and self._client is not None:
            self._on_stale(event.path)

    def _thread_ended(self) -> None:
        """Begin anew after kazoo gave up, which it does for an answer that it does not understand."""
        if self._client is None or self._renewal is not None:
            return
        if self.state is not SessionState.LOST:
            self._change_state(SessionState.LOST)
        self._renewal = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        await asyncio.to_thread(_end, self._client)
        await asyncio.sleep(self._settings.retry_max_s)
        self._renewal = None
        self.start()


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """kazoo tells of each attempt at warning level; what an operator needs is told once, by us."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """At debug level whatever it is."""
        super().log(min(level, logging.DEBUG), msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add nothing."""
        return msg, kwargs


def _answer(answered: asyncio.Future[Any], result: Any) -> None:
    if answered.done():
        return
    if result.exception is None:
        answered.set_result(result.value)
    else:
        answered.set_exception(result.exception)


def _end(client: Any) -> None:
    """Close a session; in a thread, because it joins kazoo's."""
    impatience = threading.Timer(GOODBYE_S, client.handler.cut)
    impatience.start()
    try:
        client.stop()
        client.close()
    except (KazooException, KazooTimeoutError, OSError) as error:
        log.warning("the session with ZooKeeper was left to expire: reason=%r", error)
    finally:
        impatience.cancel()
        impatience.join()


def _acl(digest: str) -> list[Any]:
    """Who may do what with our znodes."""
    if not digest:
        return list(OPEN_ACL_UNSAFE)
    user, _, password = digest.partition(":")
    return [make_digest_acl(user, password, all=True), *READ_ACL_UNSAFE]


def _stat(stat: Any) -> Stat:
    return Stat(
        stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.version, stat.ephemeralOwner, stat.dataLength
    )
