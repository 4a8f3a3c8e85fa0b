"""The canonical form of JSON, in which payloads are stored and delivered.

Compact, number text and order of members as they came, with ``<``, ``>``,
``&``, U+2028 and U+2029 escaped, so that the bytes can stand in HTML, in a
script, and as one line of any protocol.
"""

from __future__ import annotations

import msgspec

_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


def canonical_json(text: bytes) -> bytes:
    """Bring a JSON value to its canonical form, which may be longer.

    Raises:
        ValueError: not exactly one JSON value, or not UTF-8. Lone surrogates
            (``"\\ud800"``) are refused too: no UTF-8 text can hold them.
        RecursionError: nested too deep to be read.
    """
    # Checks the syntax but not the encoding. Not decode(): it refuses numbers that no double can hold.
    compact = msgspec.json.format(text, indent=-1)
    if not compact.isascii():
        compact.decode()
    return escape(compact)


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
