"""The short way of the most frequent request: a push to one key, complete in one read of an idle connection.

aiohttp's parser, its objects and its task take 30 us of CPU a request; this
takes 5 (bench/push.py: 85 to 54 us for a push with expire 0). Everything that
is not exactly this request in its plainest form goes the usual way, before
anything of it was done. So nothing is decided here that the usual way would
decide otherwise, and no error is answered here but one of a push. Whether a
connection is idle its own class knows (quickconnection.py).
"""

from __future__ import annotations

import logging
import re

from cluster.errors import EnckeError
from cluster.failurelimiter import FailureLimiter
from cluster.model import MAX_KEY_BYTES, Key
from web.codec.params import expire_param, key_param, parse_query
from web.codec.payload import canonical
from web.codec.replies import Answer, Api, compatible, failure, failure_code
from web.metrics import WebMetrics
from web.pushing.pending import PendingPush
from web.pushing.push import Pusher
from web.serving.access import Access, Verdict
from web.serving.connection import MAX_HEADER_FIELDS
from web.serving.request import host_of

log = logging.getLogger(__name__)

PATHS = ("/1/admin/push/private", "/admin/push")

MAX_HEAD_BYTES = 2048
# Larger bodies are counted in the budget, which only the usual way does.
MAX_BODY_BYTES = 4096
# Not a length.
_UNKNOWN = -1
# Header sections that are remembered. Clients repeat theirs, but for the length.
MAX_SECTIONS = 512

_REQUEST_LINE = re.compile(rb"POST (/[!\"$->@-~]*)\?([!\"$-~]*) HTTP/1\.1")
# A key and a time as nearly all are, which need neither decoding nor checking: 2 us less a push.
_PLAIN_LINE = re.compile(
    rb"POST (/[a-z0-9/]+)\?key=([A-Za-z0-9_.:@~-]{1,%d})&expire=([0-9]{1,9}) HTTP/1\.1\r\n" % MAX_KEY_BYTES
)
_FIELD = re.compile(rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]*)")
_LENGTH = re.compile(rb"[0-9]{1,4}")
# Fields that change what a request means; the usual way knows how.
_MEANINGFUL = frozenset(
    {b"content-encoding", b"expect", b"origin", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


class QuickPushes:
    """Recognises the requests and begins their pushes. Knows no sockets."""

    def __init__(
        self,
        pusher: Pusher,
        access: Access,
        metrics: WebMetrics,
        max_payload_bytes: int,
        limiter: FailureLimiter,
    ) -> None:
        """Recognise nothing yet.

        Args:
            limiter: where a token is wanted, only addresses that it trusts are served: whoever guesses
                tokens has to go the usual way, which counts.
        """
        self._pusher = pusher
        self._access = access
        self._limiter = limiter if access.wants_token else None
        self._metrics = metrics
        self._max_payload_bytes = max_payload_bytes
        self._counters = {path.encode(): metrics.requests.child(path) for path in PATHS}
        # Length of the body by header section, None where the usual way must be gone.
        self._lengths: dict[bytes, int | None] = {}
        # The answer of a push that has succeeded.
        self.ok = compatible()
        # See Pusher. Handed on like this because each call on the way counts.
        self.take_success = pusher.take_success
        self.expect = pusher.expect

    def begin(self, data: bytes, peer: object) -> PendingPush | None:
        """Begin the push of a request; None = go the usual way, nothing was done.

        Args:
            peer: name of the socket at the other end.
        """
        if self._limiter is not None and not self._limiter.is_trusted(host_of(peer)):
            return None
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        line_end = data.find(b"\r\n")
        if end <= 0:
            return None
        section = data[line_end:end]
        length = self._lengths.get(section, _UNKNOWN)
        if length == _UNKNOWN:
            length = self._remember(section)
        if length is None or len(data) != end + 4 + length:
            return None
        line = _PLAIN_LINE.match(data)
        query = None
        if line is None:
            query = line = _REQUEST_LINE.fullmatch(data, 0, line_end)
        counter = self._counters.get(line[1]) if line is not None else None
        if line is None or counter is None:
            return None
        try:
            key, expire_s = (Key(line[2].decode()), int(line[3])) if query is None else _read_query(query)
            payload = canonical(data[end + 4 :], self._max_payload_bytes)
            pending = self._pusher.begin_one(key, payload, expire_s)
        except EnckeError:
            return None
        counter.value += 1
        return pending

    async def finish(self, pending: PendingPush) -> Answer:
        """Do what a push still needs, whatever has come of it so far; its answer."""
        try:
            reply = await self._pusher.finish(pending)
        except EnckeError as error:
            return failure(error, Api.COMPATIBLE)
        except Exception:
            self._metrics.errors.value += 1
            log.exception("push failed: key=%s", pending.keys[0])
            return failure(EnckeError("internal error"), Api.COMPATIBLE)
        return failure_code(reply.failed[0].code, "", Api.COMPATIBLE) if reply.failed else self.ok

    def _remember(self, section: bytes) -> int | None:
        if len(self._lengths) >= MAX_SECTIONS:
            self._lengths.clear()
        length = self._lengths[section] = self._read_section(section)
        return length

    def _read_section(self, section: bytes) -> int | None:
        fields: dict[bytes, bytes] = {}
        position = 0
        while match := _FIELD.match(section, position):
            name = match[1].lower()
            if name in fields or name in _MEANINGFUL:
                return None
            fields[name] = match[2].rstrip()
            if name == b"connection" and fields[name].lower() != b"keep-alive":
                return None
            position = match.end()
        length = fields.get(b"content-length", b"")
        is_whole = position == len(section) and len(fields) <= MAX_HEADER_FIELDS
        if not is_whole or b"host" not in fields or _LENGTH.fullmatch(length) is None:
            return None
        authorization = fields.get(b"authorization")
        given = None if authorization is None else authorization.decode()
        verdict = self._access.check(None, given, fields[b"host"].decode())
        return int(length) if verdict is Verdict.ALLOWED and int(length) <= MAX_BODY_BYTES else None


def _read_query(line: re.Match[bytes]) -> tuple[Key, int]:
    """Read the parameters of a push.

    Raises:
        RequestError: one is missing or wrong.
    """
    params = parse_query(line[2].decode())
    return key_param(params.get("key", "")), expire_param(params.get("expire", ""))
