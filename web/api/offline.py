"""What a subscriber asks for beside its connection: stored messages after a mid, and the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from cluster.contracts.message import MessageService
from cluster.errors import RequestError
from cluster.failurelimiter import FailureLimiter
from cluster.model import Key, Message, Mid
from cluster.tokens import TokenVerifier
from web.api.asking import StoreQuestions
from web.api.dialect import Dialect
from web.api.storetime import StoreTime
from web.codec.params import key_param, mid_param
from web.codec.payload import json_string
from web.codec.replies import Answer, Api, too_many_tokens
from web.metrics import WebMetrics
from web.serving.request import Request

# Read from the store at a time, so that one fetch does not hold its writer's thread for long.
PAGE_MESSAGES = 500
PAGE_BYTES = 1024 * 1024


class Offline:
    """GET /msg/get and /time/get with their versions."""

    def __init__(
        self,
        messages: MessageService,
        questions: StoreQuestions,
        store_time: StoreTime,
        verifier: TokenVerifier,
        limiter: FailureLimiter,
        metrics: WebMetrics,
        *,
        max_bytes: int,
        unix_time: Callable[[], float],
    ) -> None:
        """Answer from `messages`.

        Args:
            limiter: counts refused tokens per address.
            max_bytes: payload bytes in one answer; the client fetches the rest with the last mid of it.
        """
        self._messages = messages
        self._store_time = store_time
        self._verifier = verifier
        self._limiter = limiter
        self._metrics = metrics
        self._questions = questions
        self._max_bytes = max_bytes
        self._unix_time = unix_time

    async def stored(self, request: Request, dialect: Dialect) -> Answer:
        """Stored, unexpired messages above a mid, ascending.

        With subscriber tokens on, the same token as for subscribing is wanted;
        without, whoever knows a key can read its messages.
        """
        address = request.remote
        wait_s = self._limiter.wait_s(address)
        if wait_s:
            self._metrics.refusals.inc("rate")
            return too_many_tokens(dialect.api, wait_s)

        async def find(params: Mapping[str, str]) -> bytes:
            key = key_param(params.get(dialect.key, ""))
            after = mid_param(dialect.mid, params.get(dialect.mid, ""))
            self._check_token(key, params.get(dialect.token, ""), address)
            messages = await self._load(key, after)
            if not messages:
                return b""
            if dialect.api is Api.OLDEST:
                return b'{"msgs":[%b],"pmsgs":[]}' % b",".join(map(_as_text, messages))
            return b'{"msgs":[%b]}' % b",".join(map(_as_object, messages))

        return await dialect.answer(request, find)

    async def time(self, request: Request, dialect: Dialect) -> Answer:
        """The store's clock as a mid."""

        async def find(_: Mapping[str, str]) -> bytes:
            return b'{"timeid":%d}' % await self._store_time.now()

        return await dialect.answer(request, find)

    def _check_token(self, key: Key, token: str, address: str) -> None:
        if not self._verifier.is_required:
            return
        if self._verifier.expiry(key, token, self._unix_time()) is not None:
            self._limiter.trust(address)
            return
        self._limiter.add_failure(address)
        self._metrics.refusals.inc("token")
        raise RequestError("the token is missing, wrong or expired")

    async def _load(self, key: Key, after: Mid) -> list[Message]:
        deadline = self._questions.deadline()
        messages: list[Message] = []
        room = self._max_bytes
        while room > 0:
            load = partial(self._messages.load_after, key, after, PAGE_MESSAGES, min(room, PAGE_BYTES))
            page = await self._questions.ask(load, deadline)
            messages += page.messages
            if not page.has_more or not page.messages:
                break
            after = page.messages[-1].mid
            room -= sum(len(message.payload) for message in page.messages)
        return messages


def _as_object(message: Message) -> bytes:
    return b'{"msg":%b,"mid":%d,"gid":0}' % (message.payload, message.mid)


def _as_text(message: Message) -> bytes:
    """A message as the oldest clients take it: JSON in a string, the payload again a string in it."""
    text = b'{"msg":%b,"mid":%d,"gid":0}' % (json_string(message.payload.decode()), message.mid)
    return json_string(text.decode())
