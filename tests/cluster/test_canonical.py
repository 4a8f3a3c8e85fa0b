"""cluster/canonical.py: the form itself. What else a payload must be: tests/web/codec/test_payload.py."""

from __future__ import annotations

import pytest

from cluster.canonical import canonical_json, escape


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (b' {"b" : 1E+400,\n"a":[ 1, { }] }\r\n', b'{"b":1E+400,"a":[1,{}]}'),
        (b'"two  spaces \\u003c"', b'"two  spaces \\u003c"'),
        (b'{"<":">&"}', b'{"\\u003c":"\\u003e\\u0026"}'),
        ('"\u2028\u2029\u2027ä"'.encode(), '"\\u2028\\u2029\u2027ä"'.encode()),
    ],
)
def test_json_becomes_compact_and_escaped_and_then_stays(text: bytes, canonical: bytes) -> None:
    assert canonical_json(text) == canonical
    assert canonical_json(canonical) == canonical


@pytest.mark.parametrize("text", [b"", b"hello", b"1 2", b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical_json(text)


def test_what_is_nested_too_deep_is_told_apart() -> None:
    with pytest.raises(RecursionError):
        canonical_json(b"[" * 100_000)


def test_what_needs_no_escapes_is_not_copied() -> None:
    text = '{"a":"é"}'.encode()
    assert escape(text) is text
