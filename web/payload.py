"""The canonical form of a payload: what is stored and delivered, the same bytes to everyone.

Compact JSON, number text and order of members as pushed, with ``<``, ``>``,
``&``, U+2028 and U+2029 escaped, so that the bytes can stand in HTML, in a
script, and as one line of any protocol. Made once, here; everything behind
the web node passes the bytes on.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate

import msgspec

from cluster.errors import RequestError, TooLargeError

# Deeper values break parsers of subscribers (and a recursive one of ours).
MAX_DEPTH = 128

_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# Opening brackets to +1 and closing ones to -1, read as signed bytes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def canonical(body: bytes, max_bytes: int) -> bytes:
    """Bring a pushed JSON value to its canonical form.

    Args:
        body: what was pushed, any bytes.
        max_bytes: limit on what was pushed and on the result.

    Raises:
        TooLargeError: over max_bytes.
        RequestError: not exactly one JSON value, not UTF-8, or nested deeper than MAX_DEPTH.
            Lone surrogates (``"\\ud800"``) are refused too: no UTF-8 text can hold them.
    """
    if len(body) > max_bytes:
        raise TooLargeError(f"the payload is over {max_bytes} bytes")
    try:
        # format() checks the syntax but not the encoding.
        compact = msgspec.json.format(body, indent=-1)
        if not compact.isascii():
            compact.decode()
    except RecursionError:
        raise RequestError(f"the payload is nested deeper than {MAX_DEPTH}") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"the payload is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise RequestError("the payload is not UTF-8") from None
    # Counting is faster than measuring, and nearly always enough; what is short need not even be counted.
    if (
        len(compact) > MAX_DEPTH
        and compact.count(b"[") + compact.count(b"{") > MAX_DEPTH
        and _depth(compact) > MAX_DEPTH
    ):
        raise RequestError(f"the payload is nested deeper than {MAX_DEPTH}")
    escaped = escape(compact)
    if len(escaped) > max_bytes:
        raise TooLargeError(f"the payload is over {max_bytes} bytes when it is escaped")
    return escaped


def escape(json: bytes) -> bytes:
    """Escape in JSON text what means something in HTML or ends a line in JavaScript.

    These characters occur only inside JSON's strings, so replacing them
    anywhere changes no value.
    """
    # Nearly all payloads need none: four searches cost half of a loop over the table. Not `in`: it first
    # asks whether bytes are a number, and what it costs to raise and drop that error is ten searches.
    find = json.find
    if find(b"<") >= 0 or find(b">") >= 0 or find(b"&") >= 0 or find(b"\xe2\x80") >= 0:
        for raw, escaped in _ESCAPES:
            json = json.replace(raw, escaped)
    return json


def json_string(text: str) -> bytes:
    """Encode a text as an escaped JSON string.

    Raises:
        UnicodeEncodeError: it holds surrogates.
    """
    return escape(msgspec.json.encode(text))


def _depth(json: bytes) -> int:
    """Deepest nesting of valid JSON: 25 ns a bracket, 5 ns a byte."""
    structure = _STRING.sub(b"", json).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(array("b", structure)), default=0)
