"""Keeps one subscription alive: finds its server, connects, reads, notices silence, reconnects, resumes.

Decides what each ending means (`_delay_after`). Does not know who consumes the
messages: they go to an inbox.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable

import msgspec

from cluster.model import Mid
from encke.client.backoff import Backoff
from encke.client.errors import Ended, KeyDeletedError, ServerError, SubscribeError, TokenRefusedError
from encke.client.inbox import Inbox
from encke.client.locate import Locator, TransportName
from encke.client.options import SubscriberOptions
from encke.client.transports import Transport, open_tcp, open_websocket, split_address
from encke.client.words import Gap, Message, Resume, Subscription, WordParser

Token = str | Callable[[], Awaitable[str]]


class Connected(msgspec.Struct, frozen=True):
    """The subscription was accepted; what was missed follows as messages."""

    # "host:port" of the comet node.
    address: str


class Reconnecting(msgspec.Struct, frozen=True):
    """The connection ended, or could not be made; the next attempt follows by itself."""

    # Close code (docs/subscriber-protocol.md); 1006 = nobody said why.
    code: int
    reason: str
    delay_s: float


Status = Connected | Reconnecting


class Wanted(msgspec.Struct, frozen=True):
    """What to subscribe to, and how."""

    key: str
    transport: TransportName
    token: Token
    device: str
    resume: Resume
    tls: ssl.SSLContext | None


class Keeper:
    """One subscription. run() is a task of the subscriber; nothing here starts by itself."""

    def __init__(
        self,
        wanted: Wanted,
        options: SubscriberOptions,
        locator: Locator,
        inbox: Inbox,
        on_status: Callable[[Status], None],
    ) -> None:
        self._wanted = wanted
        self._options = options
        self._locator = locator
        self._inbox = inbox
        self._on_status = on_status
        self._parser = WordParser()
        self._backoff = Backoff(options.backoff_base_s, options.backoff_max_s, random.random)
        # Where the next subscription resumes: after the last message that went into the inbox.
        self._position: Mid | None = Mid(wanted.resume) if isinstance(wanted.resume, int) else None
        # A server that has nothing left to say announces the same gap at each subscription.
        self._last_gap: Gap | None = None
        # The live connection; loop time at which it was accepted.
        self._transport: Transport | None = None
        self._live_since: float | None = None
        # Words received on it after the first; _beat() sees by it that the server lives.
        self._words = 0
        self._is_reading = False
        self._is_silent = False
        # Highest mid to acknowledge, and the highest that was sent on this connection.
        self._acknowledged = Mid(0)
        self._acknowledged_here = Mid(0)

    async def run(self) -> None:
        """Stay subscribed until cancelled.

        Cancellation: closes the connection, at most a second later.

        Raises:
            SubscribeError, ServerError: reconnecting is no use.
        """
        while True:
            # Whoever does not take messages needs no connection either.
            await self._inbox.wait_room()
            self._live_since = None
            try:
                await self._stay_connected()
            except Ended as ended:
                delay_s = self._delay_after(ended)
                self._on_status(Reconnecting(ended.code, ended.reason, delay_s))
            await asyncio.sleep(delay_s)

    def acknowledge(self, mid: Mid) -> None:
        """Note that everything up to mid is processed; send_acknowledgement() tells the server.

        Raises:
            ValueError: no such message was received.
        """
        if mid > (self._position or 0):
            raise ValueError(f"mid {mid} was not received yet")
        self._acknowledged = max(self._acknowledged, mid)

    async def send_acknowledgement(self) -> None:
        """Tell the server, once; without a connection it is told after the next one begins."""
        # Before the first word after the acceptance the server may not have
        # read where we resume, and knows of no message that we could mean.
        if self._transport is None or not self._words or self._acknowledged <= self._acknowledged_here:
            return
        self._acknowledged_here = self._acknowledged
        transport = self._transport
        try:
            async with asyncio.timeout(self._options.answer_timeout_s):
                await transport.send_acknowledgement(self._acknowledged)
        except Ended:
            return  # The reader sees it too, and the next connection sends it again.
        except TimeoutError:
            transport.abort()

    # -- one connection

    async def _stay_connected(self) -> None:
        token = self._wanted.token if isinstance(self._wanted.token, str) else await self._wanted.token()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                transport, address = await self._subscribe(token)
        except TimeoutError as error:
            raise Ended(1006, "no answer in time") from error
        beat = asyncio.create_task(self._beat(transport))
        try:
            self._begin(transport, address)
            if self._options.protocol == 1:
                await self._fetch_missed(token)
            await self._read(transport)
        except Ended as ended:
            if self._is_silent:
                raise Ended(1006, "no answer to a heartbeat") from ended
            raise
        finally:
            self._transport = None
            beat.cancel()
            try:
                await asyncio.gather(beat, return_exceptions=True)
            finally:
                await transport.close()

    async def _subscribe(self, token: str) -> tuple[Transport, str]:
        """Find the server anew, connect, and wait until it accepts."""
        wanted, options = self._wanted, self._options
        if self._position is None and wanted.resume is None:
            # From now on means from this moment, also when the first connection fails.
            self._position = await self._locator.now()
        address = await self._locator.server(wanted.transport)
        split_address(address)
        resume: Resume = wanted.resume if self._position is None else self._position
        subscription = Subscription(
            wanted.key, options.heartbeat_s, token, wanted.device, resume, options.protocol
        )
        open_transport = open_tcp if wanted.transport == "tcp" else open_websocket
        transport = await open_transport(address, subscription, options.max_message_bytes, wanted.tls)
        try:
            if self._parser.parse(await transport.receive()) is not None:
                raise ServerError("the server sent a message before it accepted the subscription")
        except BaseException:
            await transport.close()
            raise
        return transport, address

    def _begin(self, transport: Transport, address: str) -> None:
        self._transport = transport
        self._live_since = asyncio.get_running_loop().time()
        self._words = 0
        self._is_reading = True
        self._is_silent = False
        self._acknowledged_here = Mid(0)
        self._on_status(Connected(address))

    async def _read(self, transport: Transport) -> None:
        while True:
            item = self._parser.parse(await transport.receive())
            self._words += 1
            if item is not None:
                self._take(item)
            elif self._acknowledged > self._acknowledged_here:
                await self.send_acknowledgement()
            if not self._inbox.has_room:
                self._is_reading = False
                await self._inbox.wait_room()
                self._is_reading = True
                self._words += 1

    def _take(self, item: Message | Gap) -> None:
        if isinstance(item, Message):
            # The server does not repeat; if one ever does, the consumer does not see it.
            if item.mid > (self._position or 0):
                self._position = item.mid
                self._inbox.put(item)
            return
        if item == self._last_gap:
            return
        self._last_gap = item
        self._inbox.put(item)
        if item.before is not None:
            # Where the gap ends: a reconnect before the next message does not announce it again.
            self._position = Mid(max(self._position or 0, item.before - 1))

    async def _fetch_missed(self, token: str) -> None:
        """Catch up with a server that cannot resume. Live messages wait in the socket meanwhile."""
        try:
            for message in await self._locator.messages_after(self._position or Mid(0), token):
                self._take(message)
        except TimeoutError as error:
            raise Ended(1006, "no answer in time") from error

    async def _beat(self, transport: Transport) -> None:
        """Send heartbeats; abort the connection when the server says nothing in return."""
        options = self._options
        pause_s = options.heartbeat_interval_s
        while True:
            await asyncio.sleep(pause_s)
            words = self._words
            try:
                async with asyncio.timeout(options.answer_timeout_s):
                    await transport.send_heartbeat()
            except Ended:
                return  # The reader sees it too.
            except TimeoutError:
                break
            await asyncio.sleep(options.answer_timeout_s)
            # While the inbox is full the answer is unread, not missing.
            if self._is_reading and self._words == words:
                break
            # From one heartbeat to the next it is the interval, not the interval and this wait.
            pause_s = max(0.0, options.heartbeat_interval_s - options.answer_timeout_s)
        self._is_silent = True
        transport.abort()

    # -- between connections

    def _delay_after(self, ended: Ended) -> float:
        """Seconds until the next attempt, or the error that ends the subscription."""
        key, was_live = self._wanted.key, self._live_since is not None
        if was_live and self._lived_s() >= self._options.stable_after_s:
            self._backoff.reset()
        match ended.code:
            case 4004:
                raise KeyDeletedError(key, ended.code, ended.reason) from ended
            case 4401 if not (was_live and callable(self._wanted.token)):
                raise TokenRefusedError(key, ended.code, ended.reason) from ended
            case 1008:
                raise SubscribeError(key, ended.code, ended.reason) from ended
            case 1009:
                raise ServerError(ended.reason) from ended
            case 4005:
                return self._backoff.longest_s()
            case 1001 | 4001 | 4401:
                return self._backoff.prompt_s()
            case _:
                return self._backoff.next_s()

    def _lived_s(self) -> float:
        return asyncio.get_running_loop().time() - (self._live_since or 0.0)
