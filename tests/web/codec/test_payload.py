"""web/codec/payload.py: the canonical form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RequestError, TooLargeError
from web.codec.payload import MAX_DEPTH, canonical, json_string

LIMIT = 1000


@pytest.mark.parametrize(
    ("pushed", "stored"),
    [
        (b'{"test":1}', b'{"test":1}'),
        (b' {"b" : 1 ,\n\t"a":[ 1, 2 ,{ }] }\r\n', b'{"b":1,"a":[1,2,{}]}'),
        (b"123.0e1", b"123.0e1"),
        (b"1E+400", b"1E+400"),
        (b"-0", b"-0"),
        (b"12345678901234567890123", b"12345678901234567890123"),
        (b'{"a":1,"a":2}', b'{"a":1,"a":2}'),
        (b'"two  spaces, \\n and \\u4f60\\/"', b'"two  spaces, \\n and \\u4f60\\/"'),
        (b'{"s":"a<b>&c"}', b'{"s":"a\\u003cb\\u003e\\u0026c"}'),
        (b'{"<":1}', b'{"\\u003c":1}'),
        ('"\u2028\u2029\u2027"'.encode(), '"\\u2028\\u2029\u2027"'.encode()),
        ('"你好 😀"'.encode(), '"你好 😀"'.encode()),
        (b'"\x7f"', b'"\x7f"'),
        (b'"\\ud83d\\ude00"', b'"\\ud83d\\ude00"'),
        (b"null", b"null"),
    ],
)
def test_payload_is_compact_and_keeps_numbers_order_and_escapes(pushed: bytes, stored: bytes) -> None:
    assert canonical(pushed, LIMIT) == stored
    assert canonical(stored, LIMIT) == stored


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"hello",
        b"NaN",
        b"-Infinity",
        b"1 2",
        b"{}{}",
        b'{"a":1',
        b"{'a':1}",
        b"[1,]",
        b"01",
        b"1.",
        b"+1",
        b'"\x00"',
        b'"a\nb"',
        b'"\\x"',
        b'"\\u12G4"',
        b'"\\ud800"',
        b'"\\udc00"',
        b"\xef\xbb\xbf{}",
        b"/**/1",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b'"\xe2\x80"',
        b"1\x00",
    ],
)
def test_anything_but_one_json_value_in_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        canonical(body, LIMIT)
    assert not isinstance(refused.value, TooLargeError)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_limited(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth

    assert canonical(nested(MAX_DEPTH), 10_000) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 999, 1_001, 100_000):
        with pytest.raises(RequestError, match="deeper"):
            canonical(nested(depth), 10_000_000)


def test_brackets_within_strings_do_not_count_as_depth() -> None:
    wide = b'["' + b"[{" * 500 + b'\\"\\\\",' + b",".join([b"[]"] * 500) + b"]"
    assert canonical(wide, 10_000) == wide


def test_size_is_limited_before_and_after_escaping() -> None:
    text = b'"' + b"x" * (LIMIT - 2) + b'"'
    assert canonical(text, LIMIT) == text
    with pytest.raises(TooLargeError):
        canonical(text + b" ", LIMIT)
    with pytest.raises(TooLargeError, match="escaped"):
        canonical(b'"' + b"<" * 500 + b'"', LIMIT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
        ),
        max_leaves=20,
    )
)
def test_no_value_is_changed(value: object) -> None:
    for ascii_only in (True, False):
        pushed = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode()
        stored = canonical(pushed, 100_000)
        assert json.loads(stored) == value
        assert not set(stored) & set(b"\n\r<>&")
        assert not {"\u2028", "\u2029"} & set(stored.decode())


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_request_errors(body: bytes) -> None:
    try:
        stored = canonical(body, LIMIT)
    except RequestError:
        return
    json.loads(stored.decode())


def test_strings_are_escaped_as_the_payload_is() -> None:
    assert json_string('a"<\u2028\x00é') == '"a\\"\\u003c\\u2028\\u0000é"'.encode()
