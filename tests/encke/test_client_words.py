"""The words of the subscriber protocol as the client reads and writes them."""

from __future__ import annotations

import contextlib
from urllib.parse import parse_qs

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comet.codec.protocol import gap_document, message_document, parse_subscribe
from encke.client import Gap, Message, ServerError
from encke.client.backoff import Backoff
from encke.client.errors import Ended
from encke.client.transports import split_address
from encke.client.words import Subscription, WordParser


def parse(word: bytes) -> Message | Gap | None:
    return WordParser().parse(word)


def test_message_keeps_the_bytes_that_were_pushed() -> None:
    item = parse(b'{"msg":{"b":1.50,"a":[]},"mid":160,"gid":0}')
    assert item == Message(160, b'{"b":1.50,"a":[]}')
    assert item.json() == {"b": 1.5, "a": []}


def test_null_is_a_message() -> None:
    assert parse(b'{"msg":null,"mid":160,"gid":0}') == Message(160, b"null")


def test_what_the_server_writes_is_what_the_client_reads() -> None:
    assert parse(message_document(160, b'"x"', 2)) == Message(160, b'"x"')
    assert parse(gap_document(80, 160)) == Gap(80, 160)
    assert parse(gap_document(80, None)) == Gap(80, None)


def test_heartbeat_answer_is_no_item() -> None:
    assert parse(b"+h") is None


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (b"-p", 1008),
        (b"-a", 4401),
        (b"-n", 4001),
        (b"-c", 1013),
        (b"-4002 unread data over the limit", 4002),
        (b"-1001", 1001),
    ],
)
def test_refusals_and_farewells_say_why_the_connection_ends(word: bytes, code: int) -> None:
    with pytest.raises(Ended) as caught:
        parse(word)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "word",
    [
        b"",
        b"h",
        b"+x",
        b"-",
        b"-z",
        b"-40011 too long",
        b"HTTP/1.1 400 Bad Request",
        b"{",
        b"{}",
        b"[]",
        b'{"msg":1}',
        b'{"mid":80}',
        b'{"msg":1,"mid":"80"}',
        b'{"msg":1,"mid":-80}',
        b'{"msg":\xff,"mid":80}',
        b'{"gap":{"after":1}}',
        b'{"gap":7}',
    ],
)
def test_anything_else_is_a_clear_error(word: bytes) -> None:
    with pytest.raises(ServerError):
        parse(word)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(word: bytes) -> None:
    with contextlib.suppress(Ended, ServerError):
        parse(word)


@given(key=st.text(min_size=1, max_size=20).filter(str.isprintable), mid=st.integers(0, 2**63 - 1))
def test_tcp_command_and_query_carry_the_same_arguments(key: str, mid: int) -> None:
    subscription = Subscription(key, 30, "t", "phone", mid)
    command = subscription.command().split(b"\r\n")
    assert command[0] == b"*7"
    assert command[2:15:2] == [b"sub", key.encode(), b"30", b"t", b"2.0", b"%d" % mid, b"phone"]
    query = parse_qs(subscription.query())
    assert query == {
        "key": [key],
        "heartbeat": ["30"],
        "token": ["t"],
        "ver": ["2.0"],
        "mid": [str(mid)],
        "dev": ["phone"],
    }


def test_server_accepts_the_arguments_of_every_resume() -> None:
    for resume in (None, 0, 80, "ack"):
        words = Subscription("bob", 30, "", "phone", resume).command().split(b"\r\n")[2:15:2]
        assert parse_subscribe(*(word.decode() for word in words[1:])) is not None


def test_protocol_1_asks_for_nothing_of_version_2() -> None:
    subscription = Subscription("bob", 30, "", "phone", 80, protocol=1)
    assert subscription.query() == "key=bob&heartbeat=30&ver=1.0"
    assert subscription.command().startswith(b"*5\r\n")


def test_message_is_decoded_by_its_payload_only() -> None:
    with pytest.raises(msgspec.DecodeError):
        Message(80, b"{").json()


def test_delays_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 4.0, lambda: 1.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_delays_are_shortened_by_up_to_a_half() -> None:
    assert Backoff(1.0, 4.0, lambda: 0.0).next_s() == 0.5


def test_a_thousand_failures_do_not_overflow_the_delay() -> None:
    backoff = Backoff(0.5, 30.0, lambda: 1.0)
    assert {backoff.next_s() for _ in range(1000)} <= {0.5 * 2**n for n in range(6)} | {30.0}


def test_prompt_delay_is_short_only_the_first_time() -> None:
    backoff = Backoff(1.0, 30.0, lambda: 0.1)
    assert backoff.prompt_s() == pytest.approx(0.055)
    assert backoff.prompt_s() == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6968", ("127.0.0.1", 6968)),
        ("comet-1.example.org:1", ("comet-1.example.org", 1)),
        ("[::1]:6968", ("::1", 6968)),
    ],
)
def test_address_of_a_node_is_taken_apart(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":1", "host", "host:", "host:0", "host:65536", "host:x", "::1:80", "a/b?c=:80", "u@host:80", "h :1"],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ServerError, match="address"):
        split_address(text)
