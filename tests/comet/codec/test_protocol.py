"""What a subscription may ask and what the server's words are, without I/O."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import Mid
from comet.codec.protocol import (
    MAX_HEARTBEAT_S,
    RESUME_ACKNOWLEDGED,
    ClientVersion,
    CloseReason,
    Refusal,
    TcpWire,
    client_version,
    gap_document,
    message_document,
    parse_subscribe,
)

OLD, ONE, TWO = ClientVersion


# -- versions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", OLD),
        ("1.0", ONE),
        ("0", ONE),
        ("1.9", ONE),
        ("x", ONE),
        (" ", ONE),
        ("v2", ONE),
        ("-2", ONE),
        ("+2", ONE),
        (" 2", ONE),
        ("²", ONE),
        ("٢", ONE),
        (".2", ONE),
        ("2", TWO),
        ("2.0", TWO),
        ("2.7.1", TWO),
        ("2.x", TWO),
        ("02", TWO),
        ("17", TWO),
        ("9" * 400, TWO),
    ],
)
def test_client_is_of_version_2_from_a_decimal_2_before_the_first_dot_on(
    text: str, version: ClientVersion
) -> None:
    assert client_version(text) is version


# -- subscriptions


def test_subscription_holds_what_was_asked() -> None:
    subscribe = parse_subscribe("bob", "60", "token", "2", "80", "phone")
    assert subscribe is not None
    assert (subscribe.key, subscribe.heartbeat_s, subscribe.token) == ("bob", 60, "token")
    assert (subscribe.version, subscribe.resume, subscribe.device) == (TWO, 80, "phone")


@pytest.mark.parametrize(
    ("text", "heartbeat_s"),
    [
        ("30", 30),
        ("+30", 30),
        ("0030", 30),
        ("+00000000000000000000000000000030", 30),
        ("3600", 3600),
        ("3601", MAX_HEARTBEAT_S),
        (str(2**63 - 1), MAX_HEARTBEAT_S),
        ("29", None),
        ("0", None),
        ("", None),
        ("+", None),
        ("-30", None),
        ("++30", None),
        ("0+30", None),
        ("30.0", None),
        ("3_0", None),
        (" 30", None),
        ("30 ", None),
        ("thirty", None),
        ("0x1e", None),
        ("٣٠", None),
        (str(2**63), None),
        ("9" * 30, None),
    ],
)
def test_heartbeat_is_a_decimal_of_at_least_30_and_an_hour_at_most(
    text: str, heartbeat_s: int | None
) -> None:
    subscribe = parse_subscribe("bob", text)
    assert (subscribe and subscribe.heartbeat_s) == heartbeat_s


@pytest.mark.parametrize("key", ["", "k" * 513, "a\nb", "half \ud83d"])
def test_bad_key_is_refused(key: str) -> None:
    assert parse_subscribe(key, "30") is None


@pytest.mark.parametrize(
    ("text", "mid"),
    [
        ("0", 0),
        ("80", 80),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        ("", None),
        ("ack", RESUME_ACKNOWLEDGED),
    ],
)
def test_resume_is_a_mid_or_what_was_acknowledged_or_nothing(text: str, mid: int | None) -> None:
    subscribe = parse_subscribe("bob", "30", "", "2", text)
    assert subscribe is not None
    assert subscribe.resume == mid


@pytest.mark.parametrize("text", ["-1", "1.5", "ACK", "x", " 1", str(2**63), "9" * 30])
def test_resume_from_anything_else_is_refused_and_ignored_below_version_2(text: str) -> None:
    assert parse_subscribe("bob", "30", "", "2", text) is None
    older = parse_subscribe("bob", "30", "", "1.0", text)
    assert older is not None
    assert older.resume is None


@pytest.mark.parametrize("device", ["", "phone", "a b", "ü" * 32, "d" * 64])
def test_device_is_printable_text_of_at_most_64_bytes(device: str) -> None:
    subscribe = parse_subscribe("bob", "30", "", "2", "", device)
    assert subscribe is not None
    assert subscribe.device == device


@pytest.mark.parametrize("device", ["d" * 65, "ü" * 33, "a\tb", "\x00", "line\u2028"])
def test_other_device_is_refused_and_ignored_below_version_2(device: str) -> None:
    assert parse_subscribe("bob", "30", "", "2", "", device) is None
    older = parse_subscribe("bob", "30", "", "", "", device)
    assert older is not None
    assert older.device == ""


def test_heartbeats_share_their_numbers() -> None:
    # 32 bytes for each of 15,000 connections otherwise.
    first, second = parse_subscribe("a", "1800"), parse_subscribe("b", "1800")
    assert first is not None
    assert second is not None
    assert first.heartbeat_s is second.heartbeat_s


# -- documents


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (b'{"n":1}', rb'{"msg":"{\"n\":1}","mid":80,"gid":0}'),
        (b'"a\\"b"', rb'{"msg":"\"a\\\"b\"","mid":80,"gid":0}'),
        (rb'"\u003c\\"', rb'{"msg":"\"\\u003c\\\\\"","mid":80,"gid":0}'),
        ('"ü\U0001f600"'.encode(), '{"msg":"\\"ü\U0001f600\\"","mid":80,"gid":0}'.encode()),
        (b"null", b'{"msg":"null","mid":80,"gid":0}'),
    ],
)
def test_oldest_clients_get_a_string_of_the_json_and_others_the_json_itself(
    payload: bytes, document: bytes
) -> None:
    assert message_document(Mid(80), payload, OLD) == document
    for version in (ONE, TWO):
        assert message_document(Mid(80), payload, version) == b'{"msg":%b,"mid":80,"gid":0}' % payload


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=8
    )
)
def test_both_shapes_mean_the_same(value: object) -> None:
    payload = json.dumps(value).encode()
    old = json.loads(message_document(Mid(160), payload, OLD))
    new = json.loads(message_document(Mid(160), payload, ONE))
    assert list(old) == list(new) == ["msg", "mid", "gid"]
    assert json.loads(old["msg"]) == new["msg"] == value
    assert old["mid"] == new["mid"] == 160


def test_gap_names_where_it_begins_and_ends() -> None:
    assert gap_document(Mid(80), Mid(240)) == b'{"gap":{"after":80,"before":240}}'
    assert gap_document(Mid(0), None) == b'{"gap":{"after":0,"before":null}}'


# -- the wire


def test_tcp_frame_is_one_bulk_string_with_its_length_in_bytes() -> None:
    wire = TcpWire(TWO)
    assert wire.frame('{"msg":"ü"}'.encode()) == '$12\r\n{"msg":"ü"}\r\n'.encode()
    assert wire.heartbeat == b"+h\r\n"


@pytest.mark.parametrize("reason", CloseReason)
def test_tcp_tells_version_2_the_codes_that_it_knows_and_others_nothing(reason: CloseReason) -> None:
    for version in (OLD, ONE):
        assert TcpWire(version).farewell(reason) == b""
    announced = reason.code == 1001 or 4000 <= reason.code < 5000
    expected = f"-{reason.code} {reason.text}\r\n".encode() if announced else b""
    assert TcpWire(TWO).farewell(reason) == expected
    assert expected.count(b"\n") <= 1


def test_reasons_have_labels_of_their_own() -> None:
    assert len({reason.label for reason in CloseReason}) == len(list(CloseReason))


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (Refusal.PARAMETER, b"-p\r\n"),
        (Refusal.NOT_OWNER, b"-n\r\n"),
        (Refusal.OVERLOADED, b"-c\r\n"),
        (Refusal.DRAINING, b"-c\r\n"),
        (Refusal.BAD_TOKEN, b"-a\r\n"),
        (Refusal.TOO_MANY, b""),
        (Refusal.TOO_MANY_TOKENS, b""),
    ],
)
def test_refusals_have_the_lines_of_the_compatible_protocol(refusal: Refusal, line: bytes) -> None:
    assert TcpWire(TWO).line(refusal.line) == line
