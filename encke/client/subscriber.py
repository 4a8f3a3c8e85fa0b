"""The messages of one key as an async iterator that survives disconnects."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp

from cluster.model import Mid, key_fault
from encke.client.inbox import Inbox
from encke.client.keeper import Connected, Keeper, Status, Token, Wanted
from encke.client.locate import Locator, TransportName
from encke.client.options import SubscriberOptions
from encke.client.urls import checked_url
from encke.client.words import Gap, Message, Resume

log = logging.getLogger(__name__)


class Subscriber:
    """Receives the messages of one key, each once, in order, across disconnects.

    ::

        async with Subscriber("http://localhost:8090", "alice") as subscriber:
            async for item in subscriber:
                if isinstance(item, Gap):
                    ...  # the server had to drop messages: load the state anew
                else:
                    print(item.mid, item.json())

    A lost connection is opened again, at the node that serves the key by then,
    and goes on after the last message that was received. Only stored messages
    can be made up for: those pushed with expire 0 while there was no connection
    are gone.

    Slow consumers: what was not asked for waits in a buffer of
    `options.buffer_bytes`; when it is full the client stops reading. A server
    that closes the connection for that is asked again when there is room.

    Cancellation: every coroutine here may be cancelled; no message is lost by
    cancelling an iteration. Leaving the `async with` ends all tasks and
    connections within about a second. For one consumer at a time.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        transport: TransportName = "websocket",
        token: Token = "",
        device: str = "",
        resume: Resume = None,
        auto_acknowledge: bool = False,
        on_status: Callable[[Status], None] | None = None,
        tls: ssl.SSLContext | None = None,
        options: SubscriberOptions | None = None,
    ) -> None:
        """Make a subscriber; nothing is connected until it is entered.

        Args:
            url: public HTTP address of the server or of a balancer before several.
            token: what the server asks of subscribers, or a coroutine function
                that fetches one for each connection; with the latter a token
                that expires is replaced without the consumer noticing.
            device: name under which acknowledgements are kept; at most 64 bytes.
            resume: None = messages from now on; a mid = everything stored above
                it; 0 = everything stored; "ack" = everything that this device
                has not acknowledged.
            auto_acknowledge: acknowledge a message when the next one is asked for.
            on_status: called when a subscription is accepted, and when an
                attempt has failed and the next one is due. Must not block.
            tls: connect to the comet node with TLS.

        Raises:
            ValueError: no HTTP URL, or an argument that no server would accept.
        """
        fault = key_fault(key)
        if fault is not None:
            raise ValueError(fault)
        options = options or SubscriberOptions()
        if transport not in ("websocket", "tcp"):
            raise ValueError(f"transport must be websocket or tcp, not {transport!r}")
        is_mid = isinstance(resume, int) and 0 <= resume < 2**63
        if not is_mid and resume is not None and resume != "ack":
            raise ValueError(f'resume must be a mid, "ack" or None, not {resume!r}')
        if options.protocol == 1 and (resume == "ack" or auto_acknowledge):
            raise ValueError("servers of protocol 1 know no acknowledgements")
        self.key = key
        self._url = checked_url(url)
        self._wanted = Wanted(key, transport, token, device, resume, tls)
        self._options = options
        self._auto_acknowledge = auto_acknowledge
        self._on_status = on_status
        self._inbox = Inbox(options.buffer_bytes)
        self._last_mid = Mid(resume) if isinstance(resume, int) else Mid(0)
        # A subscription was accepted, or the keeper has ended.
        self._is_decided = asyncio.Event()
        self._error: Exception | None = None
        # Live from entering to close().
        self._session: aiohttp.ClientSession | None = None
        self._keeper: Keeper | None = None
        self._task: asyncio.Task[None] | None = None
        # The message that was given out last, until it is acknowledged; how many since the last sending.
        self._given: Message | None = None
        self._unsent_acknowledgements = 0

    @property
    def last_mid(self) -> Mid:
        """Mid of the last message that was given out: where a later subscriber may resume. 0 = none yet."""
        return self._last_mid

    async def __aenter__(self) -> Self:
        """Subscribe, and wait until the server has accepted: what is pushed from then on arrives.

        A server that cannot be reached is tried again and again; bound it with
        `asyncio.timeout` if that is not wanted.

        Raises:
            SubscribeError, ServerError: see errors.py.
        """
        if self._task is not None:
            raise RuntimeError("a subscriber can be entered once")
        timeout = aiohttp.ClientTimeout(total=self._options.connect_timeout_s)
        self._session = aiohttp.ClientSession(timeout=timeout)
        locator = Locator(self._session, self._url, self.key)
        self._keeper = Keeper(self._wanted, self._options, locator, self._inbox, self._report)
        self._task = asyncio.create_task(self._run(self._keeper))
        try:
            await self._is_decided.wait()
            if self._error is not None:
                raise self._error
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; see close()."""
        await self.close()

    def __aiter__(self) -> Self:
        """Iterate over what comes; a second `async for` goes on where the first one stopped."""
        return self

    async def __anext__(self) -> Message | Gap:
        """Give the next message or gap, waiting for it.

        Raises:
            StopAsyncIteration: the subscriber was closed.
            SubscribeError, ServerError: the subscription has ended for good;
                everything received before was given out.
        """
        if self._task is None:
            raise RuntimeError("enter the subscriber first: async with Subscriber(...) as subscriber")
        if self._auto_acknowledge and self._given is not None:
            await self._acknowledge_given(self._given)
        item = await self._inbox.get()
        if isinstance(item, Message):
            self._last_mid = item.mid
            self._given = item
        return item

    async def acknowledge(self, mid: int) -> None:
        """Tell the server that this device has processed every message up to mid.

        The server does not answer, and writes it within a second or so: after
        a crash `resume="ack"` may repeat a little, never skip. Without a
        connection it is sent when there is one again. An older mid than the
        last one changes nothing.

        Cancellation: safe; it may or may not have been sent.

        Raises:
            ValueError: a mid that was not received.
        """
        if self._keeper is None:
            raise RuntimeError("enter the subscriber first")
        self._keeper.acknowledge(Mid(mid))
        self._unsent_acknowledgements = 0
        await self._keeper.send_acknowledgement()

    async def close(self) -> None:
        """Send the last acknowledgement and end the connection.

        An iteration gives out what has been received and then stops. May be called again.
        """
        self._inbox.close()
        try:
            if self._keeper is not None:
                await self._keeper.send_acknowledgement()
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            if self._session is not None:
                await self._session.close()

    async def _run(self, keeper: Keeper) -> None:
        try:
            await keeper.run()
        except Exception as error:
            # Not ours to judge: the consumer gets it after the messages that came before.
            self._error = error
            self._inbox.close(error)
        finally:
            self._is_decided.set()

    def _report(self, status: Status) -> None:
        if isinstance(status, Connected):
            log.debug("subscribed: key=%s node=%s", self.key, status.address)
            self._is_decided.set()
        else:
            log.debug("reconnecting: key=%s reason=%s code=%d", self.key, status.reason, status.code)
        if self._on_status is not None:
            self._on_status(status)

    async def _acknowledge_given(self, message: Message) -> None:
        """Send once for a row of messages: each frame would cost as much as the message."""
        assert self._keeper is not None
        self._given = None
        self._keeper.acknowledge(message.mid)
        self._unsent_acknowledgements += 1
        if self._inbox.is_empty or self._unsent_acknowledgements >= self._options.acknowledge_every:
            self._unsent_acknowledgements = 0
            await self._keeper.send_acknowledgement()
