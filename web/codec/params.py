"""From the text of a request to values: the query string, forms and the JSON of requests.

Wire names end here. Whatever is wrong becomes a RequestError whose text says
what to change; it is shown by the version 2 API only.
"""

from __future__ import annotations

import re
from typing import TypeVar, cast
from urllib.parse import unquote

import msgspec

from cluster.contracts.message import MAX_EXPIRE_S, MAX_PUSH_ID_BYTES
from cluster.errors import RequestError, TooLargeError
from cluster.mids import MAX_MID
from cluster.model import MAX_KEY_BYTES, Key, Mid, key_fault

# Longer ones are not what any client sends; the path with dots is what the JavaScript SDK sends.
MAX_CALLBACK_CHARS = 128
_CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*){0,4}", re.ASCII)

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_T = TypeVar("_T")

_DIGITS = re.compile(r"[0-9]{1,32}", re.ASCII)


class PushRequest(msgspec.Struct, frozen=True):
    """A push whose parameters are good; its payload is not checked yet."""

    # Distinct, in the order of the request; empty only when all are in `refused`.
    keys: list[Key]
    # As pushed; web/codec/payload.py makes it canonical.
    body: bytes
    expire_s: int
    # The caller's own id; empty = none.
    push_id: str = ""
    # Keys that can never be pushed to; the others are.
    refused: tuple[str, ...] = ()
    # It named one key, whose failure is the request's; a list reports failures per key.
    is_single: bool = False


def parse_query(text: str) -> dict[str, str]:
    """Read "a=1&b=2"; of a repeated name the first value counts.

    As the original did: a part with a semicolon, a bad percent escape or bytes
    that are not UTF-8 is as if it were not there.
    """
    values: dict[str, str] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        if "%" in part or "+" in part or ";" in part:
            try:
                name, value = _unescape(part)
            except ValueError:
                continue
        if name not in values:
            values[name] = value
    return values


def parse_form(body: bytes) -> dict[str, str]:
    """Read a form body as parse_query() does, but refuse what that skips.

    Raises:
        RequestError: a part is malformed.
    """
    text = body.decode("utf-8", "surrogateescape")
    values: dict[str, str] = {}
    for part in text.split("&"):
        try:
            name, value = _unescape(part)
        except ValueError as error:
            raise RequestError(f"the form is malformed: {error}") from None
        values.setdefault(name, value)
    return values


def key_param(text: str) -> Key:
    """Check a key.

    Raises:
        RequestError: missing, too long, or with characters that keys cannot have.
    """
    fault = key_fault(text)
    if fault is not None:
        raise RequestError(fault)
    return Key(text)


def path_key(text: str) -> Key:
    """Check a percent-encoded key of a path.

    Raises:
        RequestError: see key_param(); or a bad escape.
    """
    if _BAD_PERCENT.search(text):
        raise RequestError("the key in the path has a bad percent escape")
    try:
        return key_param(unquote(text, errors="strict"))
    except UnicodeDecodeError:
        raise RequestError("the key in the path is not UTF-8") from None


def number_param(name: str, text: str, highest: int, *, lowest: int = 0) -> int:
    """Read a decimal number from lowest to highest; ASCII digits only.

    Raises:
        RequestError: it is missing or anything else.
    """
    if not _DIGITS.fullmatch(text) or not lowest <= (number := int(text)) <= highest:
        raise RequestError(f"{name} must be a decimal number from {lowest} to {highest}")
    return number


def expire_param(text: str) -> int:
    """Read the lifetime of a message in seconds; 0 = not stored.

    Raises:
        RequestError: it is missing or not a number from 0 to MAX_EXPIRE_S.
    """
    return number_param("expire", text, MAX_EXPIRE_S)


def mid_param(name: str, text: str) -> Mid:
    """Read a mid; a leading plus is let through, as the original did.

    Raises:
        RequestError: it is missing, negative, or over 63 bits.
    """
    return Mid(number_param(name, text.removeprefix("+"), MAX_MID))


def callback_param(text: str) -> str:
    """Check the name of a JSONP callback; empty = none was asked for.

    Raises:
        RequestError: it is not a path of JavaScript identifiers; anything else would let a
            page's address choose the script that our answer becomes.
    """
    if text and (len(text) > MAX_CALLBACK_CHARS or not _CALLBACK.fullmatch(text)):
        raise RequestError("the callback must be a JavaScript identifier path")
    return text


class _ManyBody(msgspec.Struct):
    m: str
    k: str


class _PushBody(msgspec.Struct, forbid_unknown_fields=True):
    msg: msgspec.Raw
    expire: int
    key: str | None = None
    keys: list[str] | None = None
    id: str | None = None


class BodyParser:
    """Reads the JSON bodies of pushes. Keeps only the decoders, which are costly to make."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._many = msgspec.json.Decoder(_ManyBody)
        self._push = msgspec.json.Decoder(_PushBody)

    def many(self, body: bytes, expire_s: int) -> PushRequest:
        """Read ``{"m": JSON text, "k": "k1,k2,..."}``.

        A key that cannot be one is left for the answer's failed keys; empty
        parts are skipped.

        Raises:
            RequestError: not of this form, or it has no keys.
            TooLargeError: too many keys.
        """
        request = _decode(self._many, body)
        parts = dict.fromkeys(request.k.split(","))
        parts.pop("", None)
        return self._request(list(parts), request.m.encode(), expire_s, "")

    def push(self, body: bytes) -> PushRequest:
        """Read a version 2 push.

        `expire` is required: neither keeping a message nor dropping it should
        happen because a name was misspelt. Unknown members are refused.

        Raises:
            RequestError: not of this form; or the single key is no key.
            TooLargeError: too many keys.
        """
        request = _decode(self._push, body)
        if (request.key is None) == (request.keys is None):
            raise RequestError("give either key or keys")
        if not 0 <= request.expire <= MAX_EXPIRE_S:
            raise RequestError(f"expire must be from 0 to {MAX_EXPIRE_S}")
        push_id = request.id or ""
        if request.id is not None and not 0 < len(push_id.encode()) <= MAX_PUSH_ID_BYTES:
            raise RequestError(f"id must have 1 to {MAX_PUSH_ID_BYTES} bytes")
        payload = bytes(request.msg)
        if request.key is not None:
            key = key_param(request.key)
            return PushRequest([key], payload, request.expire, push_id, is_single=True)
        keys = list(dict.fromkeys(request.keys or ()))
        return self._request(keys, payload, request.expire, push_id)

    def _request(self, keys: list[str], payload: bytes, expire_s: int, push_id: str) -> PushRequest:
        if not keys:
            raise RequestError("there are no keys")
        if len(keys) > self._max_keys:
            raise TooLargeError(f"more than {self._max_keys} keys")
        good, refused = split_keys(keys)
        return PushRequest(good, payload, expire_s, push_id, refused)


def split_keys(keys: list[str]) -> tuple[list[Key], tuple[str, ...]]:
    """Separate the keys that can be pushed to from those that cannot; keeps the order.

    All are checked at once first, 0.05 us a key instead of 0.3: one printable
    ASCII text, no part of it too long (bench/http.py).
    """
    text = "".join(keys)
    if text.isascii() and text.isprintable() and max(map(len, keys)) <= MAX_KEY_BYTES and "" not in keys:
        return cast("list[Key]", keys), ()
    good = [Key(key) for key in keys if key_fault(key) is None]
    return good, tuple(key for key in keys if key_fault(key) is not None)


def _unescape(part: str) -> tuple[str, str]:
    """Split a part of a query and decode both sides.

    Raises:
        ValueError: a semicolon, a bad percent escape, or not UTF-8.
    """
    if ";" in part:
        raise ValueError("semicolon")
    if _BAD_PERCENT.search(part):
        raise ValueError("bad percent escape")
    name, _, value = part.replace("+", " ").partition("=")
    return unquote(name, errors="strict"), unquote(value, errors="strict")


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        if not body.isascii():
            # The decoder checks only what it keeps.
            body.decode()
        return decoder.decode(body)
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise RequestError("the body is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"the body is not what is expected: {error}") from None
