"""Answers: the exact bytes of the compatible API, the objects of version 2, and which error becomes what.

The only place that puts an error on the wire (_RULES). Knows nothing of
sockets; web/serving/listener.py sends what is made here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus

import msgspec

from cluster import errors
from cluster.canonical import escape
from cluster.errors import EnckeError


class Api(Enum):
    """Which shape the answers of a route have."""

    # Oldest clients, paths without a version: "msg":"ok" beside "ret".
    OLDEST = 0
    # /1/... and /2/server/get: {"data":...,"ret":0}.
    COMPATIBLE = 1
    # /2/admin/...: real status codes, an error object.
    V2 = 2


def api_of(path: str) -> Api:
    """The shape of answers about a path that has no route of its own."""
    return Api.V2 if path.startswith("/2/admin") else Api.COMPATIBLE


class Answer:
    """A whole answer, encoded but for what belongs to the connection. Immutable; may be sent many times."""

    __slots__ = ("body", "head", "status")

    def __init__(
        self, body: bytes, content_type: bytes, status: int = 200, extra: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        # Status line and headers; without Date, Connection and the empty line.
        self.head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nX-Content-Type-Options: nosniff\r\n%b" % (
            status,
            HTTPStatus(status).phrase.encode(),
            content_type,
            b"".join(
                b"%b: %b\r\n" % (n.encode(), v.encode("utf-8", "surrogateescape"))
                for n, v in (extra or {}).items()
            ),
        )
        # RFC 9110, section 8.6: not in an answer that never has a body.
        if status != HTTPStatus.NO_CONTENT:
            self.head += b"Content-Length: %d\r\n" % len(body)


class _Rule(msgspec.Struct, frozen=True):
    ret: int
    # Of version 2. The compatible API answers 200, but for _TOO_LARGE.
    status: int


_JSON = b"application/json;charset=utf-8"
_JAVASCRIPT = b"application/javascript;charset=utf-8"
_TEXT = b"text/plain; charset=utf-8"

# By EnckeError.code, because a push to many keys reports codes per key.
_STATUS: dict[type[EnckeError], int] = {
    errors.RequestError: 400,
    errors.ConflictError: 409,
    errors.TooLargeError: 413,
    errors.NotOwnerError: 503,
    errors.NoNodeError: 503,
    errors.UnavailableError: 503,
    errors.OverloadedError: 503,
    errors.DeadlinePassedError: 503,
    errors.OutOfOrderError: 503,
    errors.InDoubtError: 504,
    errors.StorageError: 503,
    errors.RemoteProtocolError: 502,
    errors.LocalProtocolError: 500,
    errors.EnckeError: 500,
}
_RULES = {error.code: _Rule(error.ret, status) for error, status in _STATUS.items()}
_INTERNAL = _RULES[EnckeError.code]

# The only error of a request's content that the compatible API answers with
# another status than 200: proxies in between say it in the same way.
_TOO_LARGE = _RULES[errors.TooLargeError.code].status


def compatible(data: bytes = b"", ret: int = 0, *, callback: str = "", status: int = 200) -> Answer:
    """Answer of the versioned compatible API.

    Args:
        data: JSON of the member "data", left out when empty. Escaped by its maker.
        ret: result code.
        callback: checked name of a JSONP callback, empty for none.
    """
    body = b'{"data":%b,"ret":%d}' % (data, ret) if data else b'{"ret":%d}' % ret
    return _wrapped(body, callback, status)


def oldest(data: bytes = b"", ret: int = 0, *, callback: str = "", status: int = 200) -> Answer:
    """Answer of the oldest API: as compatible(), with "msg":"ok" whatever the result is."""
    body = b'{"data":%b,"msg":"ok","ret":%d}' % (data, ret) if data else b'{"msg":"ok","ret":%d}' % ret
    return _wrapped(body, callback, status)


def v2(body: object, status: int = 200) -> Answer:
    """Answer of version 2: any value that msgspec encodes."""
    return Answer(v2_bytes(body), _JSON, status)


def v2_bytes(body: object) -> bytes:
    """The escaped JSON of a version 2 answer, as it also stands in a line of a stream."""
    return escape(msgspec.json.encode(body))


def v2_error(code: str, message: str) -> dict[str, dict[str, str]]:
    """Error object of version 2."""
    return {"error": {"code": code, "message": message}}


def document(json: bytes) -> Answer:
    """Answer with a ready JSON document."""
    return Answer(json, _JSON)


def failure(error: EnckeError, api: Api, callback: str = "") -> Answer:
    """Answer for an error. Texts of errors are shown in version 2 only."""
    return failure_code(error.code, str(error) or error.code, api, callback)


def failure_code(code: str, message: str, api: Api, callback: str = "") -> Answer:
    """As failure(), for an error of which only the code is known (one key of a push)."""
    rule = _RULES.get(code, _INTERNAL)
    if api is Api.V2:
        return v2(v2_error(code, message), rule.status)
    make = oldest if api is Api.OLDEST else compatible
    return make(ret=rule.ret, callback=callback, status=_TOO_LARGE if rule.status == _TOO_LARGE else 200)


def failure_status(code: str) -> int:
    """HTTP status of version 2 for an error code."""
    return _RULES.get(code, _INTERNAL).status


def refusal(status: int, api: Api, message: str, extra: Mapping[str, str] | None = None) -> Answer:
    """Answer for a request that is turned away before anything of it was done.

    401, 403 and 400 are the caller's fault (65534 in the compatible API); 408, 429
    and 503 may succeed later (65535).
    """
    if api is Api.V2:
        code = errors.UnavailableError.code if status == 503 else HTTPStatus(status).name.lower()
        return Answer(v2_bytes(v2_error(code, message)), _JSON, status, extra)
    ret = errors.UnavailableError.ret if status in (408, 429, 503) else errors.RequestError.ret
    body = b'{"msg":"ok","ret":%d}' if api is Api.OLDEST else b'{"ret":%d}'
    return Answer(body % ret, _JSON, status, extra)


def too_many_tokens(api: Api, wait_s: float) -> Answer:
    """Answer for an address that has sent too many bad tokens."""
    return refusal(429, api, "too many refused tokens", {"Retry-After": str(math.ceil(wait_s))})


def no_content(extra: Mapping[str, str]) -> Answer:
    """The answer to a CORS preflight."""
    return Answer(b"", _TEXT, 204, extra)


def not_found_object(message: str) -> Answer:
    """What the path names is not there (version 2)."""
    return v2(v2_error("not_found", message), 404)


def not_found(api: Api) -> Answer:
    """No such path."""
    if api is Api.V2:
        return not_found_object("no such path")
    return Answer(b"404 page not found\n", _TEXT, 404)


def wrong_method(api: Api, allowed: str) -> Answer:
    """The path exists, the method does not."""
    if api is Api.V2:
        body = v2_bytes(v2_error("method_not_allowed", f"use {allowed}"))
        return Answer(body, _JSON, 405, {"Allow": allowed})
    return Answer(b"Method Not Allowed\n", _TEXT, 405, {"Allow": allowed})


def transport_error(status: int) -> Answer:
    """Answer to bytes that are no acceptable HTTP request."""
    return Answer(b"%d %b" % (status, HTTPStatus(status).phrase.encode()), _TEXT, status)


def _wrapped(body: bytes, callback: str, status: int) -> Answer:
    if callback:
        return Answer(b"%b(%b)" % (callback.encode(), body), _JAVASCRIPT, status)
    return Answer(body, _JSON, status)
