"""What a subscriber asks of the public HTTP API: its server, the time, missed messages of old servers."""

from __future__ import annotations

from typing import Literal

import aiohttp
import msgspec

from cluster.model import Mid
from encke.client.errors import Ended, ServerError, SubscribeError
from encke.client.failures import failure_words
from encke.client.words import Message

TransportName = Literal["websocket", "tcp"]
_PROTO = {"websocket": "1", "tcp": "2"}

# Codes of the compatible API (docs/http-api.md).
_OK = 0
_NO_NODE = 1001
_PARAMETER_ERROR = 65534


class _Item(msgspec.Struct):
    msg: msgspec.Raw
    mid: int


class _Data(msgspec.Struct):
    server: str = ""
    timeid: int = 0
    msgs: list[_Item] = []


class _Answer(msgspec.Struct):
    ret: int
    data: _Data | None = None


class Locator:
    """Asks one web node (or a balancer before several) about one key. The session is the caller's."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url
        self._key = key
        self._decoder = msgspec.json.Decoder(_Answer)

    async def server(self, transport: TransportName) -> str:
        """Address ("host:port") of the comet node that serves the key now.

        Raises:
            Ended: nobody answers, or no node serves the key now; try again later.
            SubscribeError: the server does not accept the key.
            ServerError: the answer is not the protocol's.
        """
        fields = {"k": self._key, "p": _PROTO[transport]}
        # Perhaps because its node does without this transport; whoever subscribes can choose another.
        data = await self._ask("/1/server/get", fields, f"no node serves the key by {transport}")
        if not data.server:
            raise ServerError(f"{self._url} named no server for the key")
        return data.server

    async def now(self) -> Mid:
        """The servers' clock as a mid: below every message that is pushed after this.

        Raises:
            Ended: nobody answers now; may be tried again.
            ServerError: what answers is not the server of this protocol.
        """
        data = await self._ask("/1/time/get", {})
        if data.timeid <= 0:
            raise ServerError(f"{self._url} did not tell the time")
        return Mid(data.timeid)

    async def messages_after(self, mid: Mid, token: str) -> list[Message]:
        """Stored messages above a mid, ascending; as many as the server keeps."""
        fields = {"k": self._key, "m": str(mid)}
        if token:
            fields["token"] = token
        data = await self._ask("/1/msg/get", fields)
        return [Message(Mid(item.mid), bytes(item.msg)) for item in data.msgs]

    async def _ask(self, path: str, fields: dict[str, str], nobody: str = "no node serves the key") -> _Data:
        url = self._url + path
        try:
            async with self._session.get(url, params=fields) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Ended(1006, failure_words(self._url, error)) from error
        if response.status >= 500 or response.status == 429:
            raise Ended(1006, f"{self._url} answered HTTP {response.status}")
        if response.status != 200:
            raise ServerError(f"{url} answered HTTP {response.status}: is it the public address of Encke?")
        try:
            answer = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServerError(f"{url} gave an answer that cannot be read: {error}") from error
        if answer.ret == _PARAMETER_ERROR:
            raise SubscribeError(self._key, 1008, "the server does not accept these parameters")
        if answer.ret != _OK:
            words = nobody if answer.ret == _NO_NODE else "internal error"
            raise Ended(1006, f"{self._url}: {words} (ret {answer.ret})")
        return answer.data or _Data()
