"""The canonical form of a payload: what is stored and delivered, the same bytes to everyone.

Made once, here, by cluster/canonical.py; everything behind the web node passes
the bytes on. Stores bring to it what gopush-cluster has left in them.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate

import msgspec

from cluster.canonical import canonical_json, escape
from cluster.errors import RequestError, TooLargeError

# Deeper values break parsers of subscribers (and a recursive one of ours).
MAX_DEPTH = 128

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
        payload = canonical_json(body)
    except RecursionError:
        raise RequestError(f"the payload is nested deeper than {MAX_DEPTH}") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"the payload is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise RequestError("the payload is not UTF-8") from None
    # Counting is faster than measuring, and nearly always enough; what is short need not even be counted.
    if (
        len(payload) > MAX_DEPTH
        and payload.count(b"[") + payload.count(b"{") > MAX_DEPTH
        and _depth(payload) > MAX_DEPTH
    ):
        raise RequestError(f"the payload is nested deeper than {MAX_DEPTH}")
    if len(payload) > max_bytes:
        raise TooLargeError(f"the payload is over {max_bytes} bytes when it is escaped")
    return payload


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
