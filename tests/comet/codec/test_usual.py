"""Usual first bytes are read at once, and as the general readers read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comet.codec.handshake import Rejection, Upgrade, read_query, read_request
from comet.codec.protocol import Subscribe
from comet.codec.resp import Command, read_command, read_subscribe
from comet.codec.usual import Handshake, HandshakeReader, SubscribeReader
from tests.comet.codec.test_handshake import HEADERS, request
from tests.comet.codec.test_resp import MALFORMED, SUBSCRIBE
from tests.support.subscriber import command

# -- raw TCP

USUAL = {
    "three arguments": SUBSCRIBE,
    "no token, version 1": command("sub", "a key", "3000", "", "1.0"),
    "version 2 with a device": command("sub", "k1", "60", "", "2", "", "phone"),
    "the longest key": command("sub", "k" * 512, "30"),
}


def read_command_generally(data: bytes) -> Subscribe | None:
    found = read_command(data)
    return read_subscribe(found.arguments) if isinstance(found, Command) else None


@pytest.mark.parametrize("data", USUAL.values(), ids=USUAL)
def test_usual_subscription_is_read_at_once_and_again(data: bytes) -> None:
    reader = SubscribeReader()
    assert read_command_generally(data) is not None
    assert reader.read(data) == reader.read(data) == read_command_generally(data)


@pytest.mark.parametrize("data", USUAL.values(), ids=USUAL)
def test_options_are_remembered_without_the_key(data: bytes) -> None:
    reader = SubscribeReader()
    reader.read(data)
    other = data.replace(b"$2\r\nk1\r\n", b"$5\r\nother\r\n")
    assert reader.read(other) == read_command_generally(other)


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_not_usual(data: bytes) -> None:
    assert SubscribeReader().read(data) is None


@pytest.mark.parametrize(
    "data", [SUBSCRIBE + b"h", SUBSCRIBE[:-1], command("sub", "k1", "29"), command("sub", "k1", "30", "tok")]
)
def test_what_needs_a_closer_look_is_left_alone(data: bytes) -> None:
    assert SubscribeReader().read(data) is None


@given(st.sampled_from(sorted(USUAL.values())), st.integers(0, 60), st.integers(0, 3), st.binary(max_size=4))
def test_a_changed_subscription_is_read_as_by_the_general_reader(
    data: bytes, at: int, removed: int, added: bytes
) -> None:
    changed = data[:at] + added + data[at + removed :]
    found = SubscribeReader().read(changed)
    if found is not None:
        assert found == read_command_generally(changed)
        command_read = read_command(changed)
        assert isinstance(command_read, Command)
        assert command_read.size == len(changed)


# -- WebSocket


def read_request_generally(data: bytes, origins: tuple[str, ...] = ()) -> Handshake | Rejection | None:
    found = read_request(data, origins)
    if not isinstance(found, Upgrade):
        return found
    subscribe, version = read_query(found.query)
    return Handshake(found.response, subscribe, version, found.size)


def usual(key: str = "k", nonce: str = HEADERS["Sec-WebSocket-Key"], *extra: str) -> bytes:
    return request(f"GET /sub?key={key}&heartbeat=60&ver=2 HTTP/1.1", *extra, Sec_WebSocket_Key=nonce)


def test_every_handshake_gets_its_own_key_and_accept_key() -> None:
    reader = HandshakeReader(())
    seen = [usual(), usual("other"), usual("other", "AAAAAAAAAAAAAAAAAAAAAA=="), usual()]
    answers = [reader.read(data) for data in seen]
    assert answers == [read_request_generally(data) for data in seen]
    assert all(isinstance(answer, Handshake) and answer.subscribe is not None for answer in answers)
    assert len({answer.response for answer in answers if isinstance(answer, Handshake)}) == 2


def test_a_subprotocol_with_a_percent_sign_is_answered_as_it_was_asked() -> None:
    data = usual("k", HEADERS["Sec-WebSocket-Key"], "Sec-WebSocket-Protocol: 100%b")
    answer = HandshakeReader(()).read(data)
    assert isinstance(answer, Handshake)
    assert b"Sec-WebSocket-Protocol: 100%b\r\n" in answer.response


def test_what_looks_like_a_nonce_or_an_accept_key_elsewhere_is_read_as_by_the_general_reader() -> None:
    other = "AAAAAAAAAAAAAAAAAAAAAA=="
    sample_accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for nonce in (other, HEADERS["Sec-WebSocket-Key"]):
        for extra in (
            f"X-Sec-WebSocket-Key: {other}",
            f"X-Comment: Sec-WebSocket-Key: {other}",
            f"Sec-WebSocket-Protocol: {sample_accept}",
        ):
            first = usual("k", nonce).replace(b"Upgrade: ", extra.encode() + b"\r\nUpgrade: ", 1)
            assert extra.encode() in first
            for data in (first, usual("k", nonce, extra)):
                answer = HandshakeReader(()).read(data)
                assert answer == read_request_generally(data)
                assert isinstance(answer, Handshake)


def test_what_was_good_for_one_does_not_let_in_another() -> None:
    reader = HandshakeReader(("https://a.example",))
    good = usual("k", HEADERS["Sec-WebSocket-Key"], "Origin: https://a.example")
    assert isinstance(reader.read(good), Handshake)
    for wrong in (
        good.replace(b"a.example", b"b.example"),
        good.replace(b"Version: 13", b"Version: 12"),
        good.replace(b"jZQ==", b"jZQ="),
        good.replace(b"heartbeat=60", b"heartbeat=1"),
        good.replace(b"Sec-WebSocket-Key", b"X-Sec-WebSocket-Key"),
    ):
        answer = reader.read(wrong)
        assert answer == read_request_generally(wrong, ("https://a.example",))
        assert isinstance(answer, Rejection) or (answer is not None and answer.subscribe is None)


def test_token_and_mid_are_read_each_time() -> None:
    reader = HandshakeReader(())
    for query in ("key=k&heartbeat=30&token=t", "key=k&heartbeat=30&ver=2&mid=80"):
        data = request(f"GET /sub?{query} HTTP/1.1")
        assert reader.read(data) == reader.read(data) == read_request_generally(data)


@given(st.integers(0, 250), st.integers(0, 3), st.text(alphabet="ak=&%: \r\n/", max_size=4))
def test_a_changed_request_is_read_as_by_the_general_reader(at: int, removed: int, added: str) -> None:
    data = usual()
    changed = data[:at] + added.encode() + data[at + removed :]
    assert HandshakeReader(()).read(changed) == read_request_generally(changed)
