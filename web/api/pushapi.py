"""The HTTP side of a push: from a request to a Pusher call, from its answer to bytes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.contracts.comet import PushReply
from cluster.errors import EnckeError, RequestError
from cluster.model import Key, Mid
from web.codec.params import BodyParser, PushRequest, expire_param, key_param, parse_query
from web.codec.payload import canonical, json_string
from web.codec.replies import (
    Answer,
    Api,
    compatible,
    failure_code,
    failure_status,
    v2,
    v2_error,
)
from web.pushing.pending import PendingPush
from web.pushing.push import Pusher
from web.serving.request import Request

# For errors of which only the code came back from a node.
_MEANINGS = {
    "id_conflict": "this id was used for this key with another payload",
    "unavailable": "the key's node or its store was not reached in time; try again with the same id",
    "overloaded": "too many pushes in progress; try again later with the same id",
    "deadline_passed": "not done in time; try again with the same id",
    "out_of_order": "what was pushed to this key before was not done in time; try again with the same id",
    "in_doubt": "not known to be done; try again with the same id",
    "storage": "the store failed; nothing was stored",
    "not_owner": "the key's node has changed; try again with the same id",
}


class PushResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One key that was pushed to, as version 2 shows it."""

    key: str
    mid: Mid
    # Connections that took the message.
    online: int
    # The id was known: nothing was done again, `mid` is the first one's.
    repeated: bool = False


class PushFailure(msgspec.Struct, frozen=True, gc=False):
    """One key that was not pushed to, as version 2 shows it."""

    key: str
    code: str


class PushResults(msgspec.Struct, frozen=True):
    """Body of a version 2 answer."""

    results: list[PushResult]
    failed: list[PushFailure]


class PushApi:
    """Handlers of the push routes."""

    def __init__(
        self, pusher: Pusher, parser: BodyParser, max_payload_bytes: int, max_body_bytes: int
    ) -> None:
        self._pusher = pusher
        self._parser = parser
        self._max_payload_bytes = max_payload_bytes
        self._max_body_bytes = max_body_bytes
        # Nearly every answer.
        self._ok = compatible()

    async def one(self, request: Request) -> Answer:
        """POST /1/admin/push/private?key=K&expire=S: the body is the payload."""
        params = parse_query(request.query)
        key = key_param(params.get("key", ""))
        expire_s = expire_param(params.get("expire", ""))
        limit = self._max_payload_bytes
        body = request.body_now(limit)
        payload = canonical(await request.body(limit) if body is None else body, limit)
        code = await self._pusher.push_one(key, payload, expire_s)
        return failure_code(code, "", Api.COMPATIBLE) if code else self._ok

    async def many(self, request: Request) -> Answer:
        """POST /1/admin/push/mprivate?expire=S: failed keys come back as "fk"."""
        expire_s = expire_param(parse_query(request.query).get("expire", ""))
        push = self._parser.many(await request.body(self._max_body_bytes), expire_s)
        payload = canonical(push.body, self._max_payload_bytes)
        failed: list[str] = list(push.refused)
        if push.keys:
            reply = await self._pusher.push(push.keys, payload, expire_s)
            failed += [push.keys[failure.index] for failure in reply.failed]
        if not failed:
            return self._ok
        return compatible(b'{"fk":[%b]}' % b",".join(map(json_string, failed)))

    async def v2(self, request: Request) -> Answer:
        """POST /2/admin/push."""
        push = self._parser.push(await request.body(self._max_body_bytes))
        pending = self.begin(push)
        body, status = await self.finish(push, pending)
        return v2(body, status)

    def begin(self, push: PushRequest, follows: Mapping[Key, str] | None = None) -> PendingPush | None:
        """Send a version 2 push; None when there is no key to send it to.

        Args:
            follows: as in Pusher.begin().

        Raises:
            RequestError: the payload is wrong.
            NoNodeError: no comet node is registered.
        """
        payload = canonical(push.body, self._max_payload_bytes)
        if not push.keys:
            return None
        return self._pusher.begin(push.keys, payload, push.expire_s, push.push_id, follows)

    async def finish(self, push: PushRequest, pending: PendingPush | None) -> tuple[object, int]:
        """Wait for the answer to begin(); return a version 2 body and its status.

        Raises:
            EnckeError: none of it was done.
        """
        if pending is None:
            return results(push, PushReply([], [], [], [])), 200
        reply = await self._pusher.finish(pending)
        if push.is_single and reply.failed:
            code = reply.failed[0].code
            return v2_error(code, _explain(code)), failure_status(code)
        return results(push, reply), 200


def results(push: PushRequest, reply: PushReply) -> PushResults:
    """Turn the columns of a reply into the rows of version 2."""
    repeated = frozenset(reply.repeated)
    failed = {failure.index: failure.code for failure in reply.failed}
    rows = [
        PushResult(key, mid, online, i in repeated)
        for i, (key, mid, online) in enumerate(zip(push.keys, reply.mids, reply.online, strict=True))
        if i not in failed
    ]
    failures = [PushFailure(key, RequestError.code) for key in push.refused]
    failures += [PushFailure(push.keys[i], code) for i, code in failed.items()]
    return PushResults(rows, failures)


def explain(error: EnckeError) -> object:
    """A version 2 body for an error."""
    return v2_error(error.code, str(error) or _explain(error.code))


def _explain(code: str) -> str:
    return _MEANINGS.get(code, "the push failed")
