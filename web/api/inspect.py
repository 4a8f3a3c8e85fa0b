"""What the operator looks at and removes: keys, single messages (version 2 admin API). Nodes: nodes.py."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from functools import partial

import msgspec

from cluster.contracts.comet import CometService, ConnectionInfo
from cluster.contracts.message import MessageService, Stored
from cluster.errors import NoNodeError
from cluster.mids import MAX_MID
from cluster.model import Epoch, Key, Mid
from web.api.asking import StoreQuestions
from web.codec.params import key_param, number_param, parse_form, parse_query, path_key
from web.codec.replies import Answer, compatible, not_found_object, v2
from web.pushing.owners import Owners
from web.serving.request import Request

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
# Payload bytes in one page; at least one message is always in it.
PAGE_BYTES = 4 * 1024 * 1024
# A key of 512 bytes, each percent-encoded, and room for what is ignored.
FORM_BYTES = 64 * 1024


class ConnectionView(msgspec.Struct, frozen=True):
    """One connection in GET /2/admin/keys/K."""

    transport: str
    device: str
    since: float
    address: str
    unread_bytes: int
    sent_mid: Mid
    # Of its device; 0 = nothing yet.
    acknowledged_mid: Mid


class StoredView(msgspec.Struct, frozen=True):
    """What is stored for a key."""

    messages: int
    payload_bytes: int
    first_mid: Mid
    last_mid: Mid
    # By device, also of those that are not connected.
    acknowledged: dict[str, Mid]


class KeyView(msgspec.Struct, frozen=True):
    """GET /2/admin/keys/K."""

    key: str
    # Name of the node that owns the key; null when no comet node is registered.
    owner: str | None
    connections: list[ConnectionView]
    stored: StoredView


class MessageView(msgspec.Struct, frozen=True):
    """One message in GET /2/admin/keys/K/messages."""

    mid: Mid
    msg: msgspec.Raw
    # Unix seconds.
    expires_at: int


class MessagesView(msgspec.Struct, frozen=True):
    """GET /2/admin/keys/K/messages: ascending."""

    messages: list[MessageView]
    # There are more after the last of these.
    has_more: bool


class Inspector:
    """Handlers of the inspecting and deleting routes."""

    def __init__(
        self,
        owners: Owners,
        messages: MessageService,
        questions: StoreQuestions,
    ) -> None:
        self._owners = owners
        self._questions = questions
        self._messages = messages

    async def key(self, _: Request, encoded_key: str) -> Answer:
        """GET /2/admin/keys/K. A key that nobody uses is shown empty."""
        key = path_key(encoded_key)
        stored = await self._questions.ask(partial(self._messages.inspect, key))
        owner: str | None = None
        connections: list[ConnectionInfo] = []
        try:
            owner = self._owners.membership.owner(key).name
            connections = await self._owners.ask(key, lambda comet, _: comet.connections(key))
        except NoNodeError:
            # Its stored messages can be looked at all the same.
            owner = None
        return v2(_key_view(key, owner, connections, stored))

    async def delete_key(self, _: Request, encoded_key: str) -> Answer:
        """DELETE /2/admin/keys/K: stored messages and connections."""
        return v2({"deleted": await self._delete(path_key(encoded_key))})

    async def delete_form(self, request: Request) -> Answer:
        """POST /1/admin/msg/del: as delete_key(), the key in a form body or in the query."""
        form = parse_form(await request.body(FORM_BYTES))
        query = parse_query(request.query)
        await self._delete(key_param(form.get("key") or query.get("key", "")))
        return compatible()

    async def messages(self, request: Request, encoded_key: str) -> Answer:
        """GET /2/admin/keys/K/messages?after=MID&limit=N: stored messages above a mid, ascending.

        Raises:
            RequestError: the key or a number is wrong.
            UnavailableError: the store does not answer.
        """
        key = path_key(encoded_key)
        query = parse_query(request.query)
        after = Mid(number_param("after", query.get("after", "0"), MAX_MID))
        limit = number_param("limit", query.get("limit", str(DEFAULT_LIMIT)), MAX_LIMIT, lowest=1)
        load = partial(self._messages.load_after, key, after, limit, PAGE_BYTES)
        page = await self._questions.ask(load)
        views = [MessageView(m.mid, msgspec.Raw(m.payload), m.expires_at) for m in page.messages]
        return v2(MessagesView(views, page.has_more))

    async def delete_message(self, _: Request, encoded_key: str, mid: str) -> Answer:
        """DELETE /2/admin/keys/K/messages/MID: 404 when it is not there (any more)."""
        key = path_key(encoded_key)
        number = Mid(number_param("mid", mid, MAX_MID))
        if not await self._questions.ask(partial(self._messages.delete_message, key, number)):
            return not_found_object("no such message")
        return v2({"deleted": 1})

    async def _delete(self, key: Key) -> int:
        def delete(comet: CometService, epoch: Epoch) -> Awaitable[int]:
            return comet.delete_key(key, epoch)

        deleted = await self._owners.ask(key, delete)
        log.info("key deleted by the operator: key=%s messages=%s", key, deleted)
        return deleted


def _key_view(key: Key, owner: str | None, connections: list[ConnectionInfo], stored: Stored) -> KeyView:
    acknowledged = stored.acknowledged
    return KeyView(
        key=key,
        owner=owner,
        connections=[
            ConnectionView(
                transport=c.transport,
                device=c.device,
                since=c.since,
                address=c.address,
                unread_bytes=c.unread_bytes,
                sent_mid=c.sent,
                acknowledged_mid=acknowledged.get(c.device, Mid(0)),
            )
            for c in connections
        ],
        stored=StoredView(
            messages=stored.messages,
            payload_bytes=stored.payload_bytes,
            first_mid=stored.first,
            last_mid=stored.last,
            acknowledged=acknowledged,
        ),
    )
