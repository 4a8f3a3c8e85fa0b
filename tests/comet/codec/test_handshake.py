"""The WebSocket upgrade request, whole and byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import Key, Mid
from comet.codec.handshake import (
    MAX_REQUEST_BYTES,
    Rejection,
    Upgrade,
    read_query,
    read_request,
)
from comet.codec.protocol import RESUME_ACKNOWLEDGED, ClientVersion, Subscribe

HEADERS = {
    "Host": "127.0.0.1:6968",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def request(
    line: str = "GET /sub?key=k&heartbeat=30 HTTP/1.1", *extra: str, without: str = "", **changed: str
) -> bytes:
    """A request; `changed` headers by their name with underscores, `extra` header lines."""
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changed.items()}
    headers.pop(without, None)
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status(data: bytes, origins: tuple[str, ...] = ()) -> int:
    answer = read_request(data, origins)
    assert answer is not None
    return int(answer.response.split()[1])


def test_good_request_is_accepted_with_its_last_byte() -> None:
    data = request()
    assert [read_request(data[:size], ()) for size in range(len(data))] == [None] * len(data)
    assert read_request(data, ()) == Upgrade(ACCEPTED, "key=k&heartbeat=30", len(data))


def test_frames_may_follow_at_once() -> None:
    data = request()
    answer = read_request(data + b"\x81\x81", ())
    assert isinstance(answer, Upgrade)
    assert answer.size == len(data)


ACCEPTABLE = {
    "as a browser says it": request(
        Connection="keep-alive, Upgrade", Upgrade="WebSocket", Origin="https://a"
    ),
    "names in small letters": request().replace(b"Sec-WebSocket", b"sec-websocket").replace(b"Host", b"host"),
    "no spaces after the colon": request().replace(b": ", b":"),
    "more spaces around the value": request().replace(b": ", b":\t ").replace(b"13\r\n", b"13 \t\r\n"),
    "the connection header twice": request("GET /sub HTTP/1.1", "Connection: x"),
    "HTTP/1.0 without a host": request("GET /sub HTTP/1.0", without="Host"),
    "the absolute form": request("GET http://comet.example/sub?key=k HTTP/1.1"),
    "compression on offer": request("GET /sub HTTP/1.1", "Sec-WebSocket-Extensions: permessage-deflate"),
    "an unknown header twice": request("GET /sub HTTP/1.1", "Cookie: a=1", "Cookie: b=2"),
    "a body of no bytes": request(Content_Length="0"),
    "bytes of Latin-1 in a header": request(User_Agent="b\xe9b\xe9"),
}


@pytest.mark.parametrize("data", ACCEPTABLE.values(), ids=ACCEPTABLE)
def test_acceptable_request_is_accepted_without_an_extension(data: bytes) -> None:
    answer = read_request(data, ())
    assert isinstance(answer, Upgrade)
    assert answer.response == ACCEPTED


REJECTED = {
    "another path": (404, request("GET /foo HTTP/1.1")),
    "the path with a slash": (404, request("GET /sub/?key=k HTTP/1.1")),
    "the absolute form of another path": (404, request("GET http://comet.example HTTP/1.1")),
    "POST": (405, request("POST /sub?key=k HTTP/1.1")),
    "HEAD": (405, request("HEAD /sub?key=k HTTP/1.1")),
    "a plain GET": (400, b"GET /sub?key=k HTTP/1.1\r\nHost: a\r\n\r\n"),
    "no upgrade header": (400, request(without="Upgrade")),
    "another upgrade": (400, request(Upgrade="h2c")),
    "no connection header": (400, request(without="Connection")),
    "a connection that is kept": (400, request(Connection="keep-alive")),
    "version 8": (400, request(Sec_WebSocket_Version="8")),
    "no version": (400, request(without="Sec-WebSocket-Version")),
    "no key": (400, request(without="Sec-WebSocket-Key")),
    "a short key": (400, request(Sec_WebSocket_Key="dGhlIHNhbXBsZQ==")),
    "a key that is not base64": (400, request(Sec_WebSocket_Key="!GhlIHNhbXBsZSBub25jZQ==")),
    "two keys": (400, request("GET /sub HTTP/1.1", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")),
    "no host": (400, request(without="Host")),
    "two hosts": (400, request("GET /sub HTTP/1.1", "Host: b")),
    "a body": (400, request(Content_Length="5")),
    "a chunked body": (400, request(Transfer_Encoding="chunked")),
    "a folded header": (400, request("GET /sub HTTP/1.1", "Cookie: a", " b")),
    "a space before the colon": (400, request("GET /sub HTTP/1.1", "Content-Length : 5")),
    "a header without a colon": (400, request("GET /sub HTTP/1.1", "nonsense")),
    "a header without a name": (400, request("GET /sub HTTP/1.1", ": x")),
    "a bare line feed": (400, request("GET /sub HTTP/1.1", "Cookie: a\nContent-Length: 5")),
    "a zero byte": (400, request("GET /sub HTTP/1.1", "Cookie: a\0")),
    "no HTTP version": (400, request("GET /sub")),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "an empty origin": (403, request(Origin="")),
    "several subprotocols": (400, request(Sec_WebSocket_Protocol="chat, superchat")),
}


@pytest.mark.parametrize(("code", "data"), REJECTED.values(), ids=REJECTED)
def test_other_requests_are_rejected_whole_and_byte_by_byte(code: int, data: bytes) -> None:
    assert status(data) == code
    verdicts = [read_request(data[:size], ()) for size in range(len(data))]
    assert not any(isinstance(verdict, Upgrade) for verdict in verdicts)


def test_rejection_is_a_complete_http_answer() -> None:
    answer = read_request(request(Sec_WebSocket_Version="8"), ())
    assert isinstance(answer, Rejection)
    head, _, body = answer.response.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 400 Bad Request",
        b"Sec-WebSocket-Version: 13",
        b"Content-Type: text/plain",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
    ]


def test_only_method_is_named_to_others() -> None:
    answer = read_request(request("POST /sub HTTP/1.1"), ())
    assert isinstance(answer, Rejection)
    assert b"\r\nAllow: GET\r\n" in answer.response


def test_one_subprotocol_is_chosen_because_browsers_insist() -> None:
    answer = read_request(request(Sec_WebSocket_Protocol="chat"), ())
    assert isinstance(answer, Upgrade)
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n" in answer.response


@pytest.mark.parametrize(
    ("origin", "code"), [("https://a.example", 101), ("https://b.example", 403), ("null", 403), (None, 101)]
)
def test_listed_origins_and_no_origin_are_let_in(origin: str | None, code: int) -> None:
    data = request() if origin is None else request(Origin=origin)
    assert status(data, ("https://a.example", "https://c.example")) == code


@pytest.mark.parametrize("size", [MAX_REQUEST_BYTES, 64 * 1024])
def test_request_over_the_limit_is_rejected_complete_or_not(size: int) -> None:
    data = request("GET /sub HTTP/1.1", "Cookie: " + "x" * size)
    assert status(data) == 431
    assert status(data[:MAX_REQUEST_BYTES]) == 431
    assert read_request(data[: MAX_REQUEST_BYTES - 1], ()) is None


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"*3\r\n$3\r\nsub\r\n", b"\r\n"])
def test_other_protocols_are_rejected_at_their_first_byte(data: bytes) -> None:
    assert status(data[:1]) == 400


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_without_an_error(data: bytes, is_request: bool) -> None:
    read_request((b"GET /sub HTTP/1.1\r\n" if is_request else b"") + data + b"\r\n\r\n", ())


# -- query

ONE, TWO, OLD = ClientVersion.ONE, ClientVersion.TWO, ClientVersion.OLD


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("key=k&heartbeat=30", Subscribe(Key("k"), 30, "", OLD, None, "")),
        ("heartbeat=30&key=k&x=y&flag", Subscribe(Key("k"), 30, "", OLD, None, "")),
        ("key=k&heartbeat=30&token=t&ver=1.0", Subscribe(Key("k"), 30, "t", ONE, None, "")),
        ("key=k&heartbeat=30&ver=2&mid=80", Subscribe(Key("k"), 30, "", TWO, Mid(80), "")),
        ("key=k&heartbeat=30&ver=2&mid=", Subscribe(Key("k"), 30, "", TWO, None, "")),
        (
            "key=k&heartbeat=30&ver=2.1&mid=ack&dev=d",
            Subscribe(Key("k"), 30, "", TWO, RESUME_ACKNOWLEDGED, "d"),
        ),
        ("key=k&heartbeat=30&ver=1&mid=80&dev=d", Subscribe(Key("k"), 30, "", ONE, None, "")),
        ("key=a%20b+c%2B&heartbeat=30", Subscribe(Key("a b c+"), 30, "", OLD, None, "")),
        ("key=%E2%82%AC&heartbeat=30", Subscribe(Key("€"), 30, "", OLD, None, "")),
        ("key=\xe2\x82\xac&heartbeat=30", Subscribe(Key("€"), 30, "", OLD, None, "")),
        ("%6bey=k&heartbeat=30", Subscribe(Key("k"), 30, "", OLD, None, "")),
        ("key=first&key=second&heartbeat=30", Subscribe(Key("first"), 30, "", OLD, None, "")),
        ("key=k=1&heartbeat=30", Subscribe(Key("k=1"), 30, "", OLD, None, "")),
    ],
)
def test_good_query_becomes_a_subscription(query: str, expected: Subscribe) -> None:
    assert read_query(query) == (expected, expected.version)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key=k",
        "heartbeat=30",
        "key=&heartbeat=30",
        "key=k&heartbeat=29",
        "key=k&heartbeat=-1",
        "key=k&heartbeat=x",
        "key=k&heartbeat=",
        "KEY=k&heartbeat=30",
        "key=%ff&heartbeat=30",
        "key=a%00b&heartbeat=30",
        "key=a%0d%0ab&heartbeat=30",
        "key=k&heartbeat=30&token=%ff",
        "key=" + "k" * 513 + "&heartbeat=30",
        "key=k&heartbeat=30&ver=2&mid=x",
    ],
)
def test_wrong_query_is_refused(query: str) -> None:
    subscribe, _ = read_query(query)
    assert subscribe is None


def test_version_of_a_refused_client_is_known() -> None:
    assert read_query("key=%ff&ver=2") == (None, TWO)
    assert read_query("ver=1") == (None, ONE)


@given(st.text(alphabet="key=&%+0fhbat\xff", max_size=60))
def test_any_query_is_read_without_an_error(query: str) -> None:
    read_query(query)
