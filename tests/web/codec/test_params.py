"""web/codec/params.py: from text to values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RequestError, TooLargeError
from web.codec import params
from web.codec.params import BodyParser, callback_param, expire_param, key_param, mid_param, path_key


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {"": ""}),
        ("k=u1&p=2", {"k": "u1", "p": "2"}),
        ("k=first&k=second", {"k": "first"}),
        ("k=&k=second", {"k": ""}),
        ("k", {"k": ""}),
        ("k=a=b", {"k": "a=b"}),
        ("k=a+b%20c", {"k": "a b c"}),
        ("k=%E4%BD%A0&p=%2B1", {"k": "你", "p": "+1"}),
        ("%6B=u1", {"k": "u1"}),
        ("k=u1;p=2", {}),
        ("k=%zz&p=2", {"p": "2"}),
        ("k=%ff&p=2", {"p": "2"}),
        ("k=%ff&k=good", {"k": "good"}),
    ],
)
def test_query_is_read_as_the_original_did(text: str, values: dict[str, str]) -> None:
    assert params.parse_query(text) == values


@given(st.text())
def test_no_query_raises(text: str) -> None:
    params.parse_query(text)


@pytest.mark.parametrize("body", [b"key=%zz", b"key=a;b=c", b"key=%ff", b"key=a&other=%"])
def test_malformed_forms_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        params.parse_form(body)


def test_form_gives_decoded_values() -> None:
    assert params.parse_form("key=a+b&x=你&key=c".encode()) == {"key": "a b", "x": "你"}
    # Raw bytes that are not UTF-8 reach key_param(), which refuses them.
    with pytest.raises(RequestError):
        key_param(params.parse_form(b"key=\xff")["key"])


@pytest.mark.parametrize("text", ["", "a\x00", "a\n", "\x7f", "x" * 513, "é" * 257, "\udcff", "\x85"])
def test_bad_keys_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        key_param(text)


def test_keys_in_paths_are_decoded_once() -> None:
    assert path_key("a%2Fb%252F+c") == "a/b%2F+c"
    for bad in ("%zz", "%ff", "%00", ""):
        with pytest.raises(RequestError):
            path_key(bad)


@pytest.mark.parametrize(
    "text", ["", "-1", "4294967296", "abc", "1.5", " 1", "1 ", "+1", "1_0", "0x10", "٣", "9" * 40]
)
def test_bad_lifetimes_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        expire_param(text)


def test_lifetimes_and_mids_in_range_are_taken() -> None:
    assert [expire_param(text) for text in ("0", "600", "007", "4294967295")] == [0, 600, 7, 4294967295]
    assert [mid_param("m", text) for text in ("0", "+1", str(2**63 - 1))] == [0, 1, 2**63 - 1]


@pytest.mark.parametrize("text", ["", "-1", "++1", "+", "1.5", "9223372036854775808", "0x10", "1_0", "%201"])
def test_bad_mids_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        mid_param("m", text)


@pytest.mark.parametrize("text", ["", "foo", "GoPushCli.callback_1", "$._a.b", "a" * 128])
def test_javascript_identifier_paths_are_callbacks(text: str) -> None:
    assert callback_param(text) == text


@pytest.mark.parametrize(
    "text", ["<script>", "a b", "a()", "1a", "a.", ".a", "a..b", "a\n", "é", "a" * 129, "a.b.c.d.e.f", "a;b"]
)
def test_other_callbacks_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        callback_param(text)


@pytest.fixture
def parser() -> BodyParser:
    return BodyParser(max_keys=3)


def test_push_to_many_takes_each_key_once_and_skips_empty_parts(parser: BodyParser) -> None:
    push = parser.many(b'{"m":"{\\"a\\": 1}","k":"b,,a, c,b,","x":"1"}', 60)
    assert push.keys == ["b", "a", " c"]
    assert push.body == b'{"a": 1}'
    assert push.expire_s == 60
    assert push.refused == ()


def test_keys_that_are_none_are_set_apart(parser: BodyParser) -> None:
    long = "x" * 513
    body = json.dumps({"m": "1", "k": f"ok,{long},a\x01b"}).encode()
    push = parser.many(body, 0)
    assert push.keys == ["ok"]
    assert push.refused == (long, "a\x01b")


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'{"k":"a"}',
        b'{"m":"1"}',
        b'{"m":"1","k":""}',
        b'{"m":"1","k":",,"}',
        b'{"m":"1","k":["a"]}',
        b'{"m":"1","k":1}',
        b'{"m":1,"k":"a"}',
        b'{"M":"1","K":"a"}',
        b'{"m":"1","k":"a"',
        b'{"m":"1","k":"a"} x',
        b'{"m":"1","k":"\xff"}',
        b'{"m":"1","k":"a","x":"\xff"}',
        b'{"m":"1","k":"\\ud800"}',
        b'{"m":"1","k":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_malformed_pushes_to_many_are_refused(parser: BodyParser, body: bytes) -> None:
    with pytest.raises(RequestError):
        parser.many(body, 0)


def test_too_many_keys_are_too_large(parser: BodyParser) -> None:
    with pytest.raises(TooLargeError):
        parser.many(b'{"m":"1","k":"a,b,c,d"}', 0)
    with pytest.raises(TooLargeError):
        parser.push(b'{"keys":["a","b","c","d"],"msg":1,"expire":0}')


def test_version_2_push_keeps_the_text_of_its_message(parser: BodyParser) -> None:
    push = parser.push(b'{"key":"a","msg": {"n":1.50} ,"expire":60,"id":"x"}')
    assert (push.keys, push.body, push.expire_s, push.push_id) == (["a"], b'{"n":1.50}', 60, "x")
    assert push.is_single
    many = parser.push(b'{"keys":["a","b","a",""],"msg":null,"expire":0}')
    assert (many.keys, many.refused, many.push_id, many.is_single) == (["a", "b"], ("",), "", False)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"key":"a","msg":1}',
        b'{"key":"a","expire":0}',
        b'{"msg":1,"expire":0}',
        b'{"key":"a","keys":["b"],"msg":1,"expire":0}',
        b'{"keys":[],"msg":1,"expire":0}',
        b'{"key":"","msg":1,"expire":0}',
        b'{"key":"a","msg":1,"expire":-1}',
        b'{"key":"a","msg":1,"expire":4294967296}',
        b'{"key":"a","msg":1,"expire":"0"}',
        b'{"key":"a","msg":1,"expire":1.5}',
        b'{"key":"a","msg":1,"expire":0,"expires":1}',
        b'{"key":"a","msg":1,"expire":0,"id":""}',
        b'{"key":"a","msg":1,"expire":0,"id":1}',
        b'{"key":"a","msg":,"expire":0}',
    ],
)
def test_malformed_version_2_pushes_are_refused(parser: BodyParser, body: bytes) -> None:
    with pytest.raises(RequestError):
        parser.push(body)


def test_ids_are_measured_in_bytes(parser: BodyParser) -> None:
    def body(push_id: str) -> bytes:
        return json.dumps({"key": "a", "msg": 1, "expire": 0, "id": push_id}).encode()

    assert parser.push(body("é" * 64)).push_id == "é" * 64
    with pytest.raises(RequestError):
        parser.push(body("é" * 65))
