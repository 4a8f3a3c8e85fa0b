"""Bad input on the HTTP ports of a running server, and what no input may change in the answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest

from cluster.model import Key
from cluster.tokens import mint
from tests.e2e.hostile import ENDS_WITHIN_S, SHORT_DEADLINES, answer_of
from tests.support.http import read_response
from tests.support.peer import Peer
from tests.support.system import Server, running

# Of the module's server.
CONFIG = SHORT_DEADLINES

JSON_TYPE = "application/json;charset=utf-8"
SCRIPT_TYPE = "application/javascript;charset=utf-8"


pytestmark = pytest.mark.usefixtures("bystander")


# -- public

PARAMETER_ERRORS = {
    "no key for a server": "/1/server/get?p=1",
    "empty key for a server": "/1/server/get?k=&p=1",
    "no transport": "/1/server/get?k=a",
    "unknown transport": "/1/server/get?k=a&p=3",
    "no key for messages": "/1/msg/get?m=0",
    "no mid": "/1/msg/get?k=a",
    "mid text": "/1/msg/get?k=a&m=x",
    "mid negative": "/1/msg/get?k=a&m=-1",
    "mid of 64 bits": f"/1/msg/get?k=a&m={2**63}",
    "mid of 5000 digits": "/1/msg/get?k=a&m=" + "9" * 5000,
    "mid in other digits": "/1/msg/get?k=a&m=%EF%BC%91",
    "key with a control": "/1/server/get?k=a%00b&p=1",
    "key of 513 bytes": "/1/server/get?k=" + "k" * 513 + "&p=1",
    "key not UTF-8": "/1/server/get?k=%ff&p=1",
    "key with a bad escape": "/1/server/get?k=%zz&p=1",
    "second version": "/2/server/get?k=&p=1",
    "callback with a script": "/1/time/get?cb=%3Cscript%3E",
    "callback with a call": "/1/time/get?cb=alert(1)",
    "callback with a line end": "/1/time/get?cb=a%0d%0ab",
    "callback with a space": "/1/time/get?cb=a%20b",
    "callback beginning with a digit": "/1/time/get?cb=1a",
    "callback beginning with a dot": "/1/time/get?cb=.a",
    "callback ending with a dot": "/1/time/get?cb=a.",
    "callback with brackets": "/1/time/get?cb=a%5B0%5D",
    "callback not ASCII": "/1/time/get?cb=%C3%A9",
    "callback of 129 characters": "/1/time/get?cb=" + "a" * 129,
}


@pytest.mark.parametrize("name", PARAMETER_ERRORS)
async def test_bad_parameter_is_65534_as_plain_json(server: Server, name: str) -> None:
    answer = await server.ask("public", "GET", PARAMETER_ERRORS[name])
    assert answer.status == 200
    assert answer.json == {"ret": 65534}
    assert answer.headers["content-type"] == JSON_TYPE
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("callback", ["a", "GoPushCli.callback_1", "$._x.y1", "a" * 128])
async def test_callback_that_is_an_identifier_path_is_called(server: Server, callback: str) -> None:
    answer = await server.ask("public", "GET", f"/1/time/get?cb={callback}")
    assert answer.headers["content-type"] == SCRIPT_TYPE
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body.startswith(callback.encode() + b"(")
    assert json.loads(answer.body[len(callback) + 1 : -1])["ret"] == 0


async def test_what_means_something_to_html_or_a_script_is_escaped_everywhere(server: Server) -> None:
    assert await server.push("html", {"s": "</script>&\u2028\u2029"}, 60) == 0
    for target in ("/1/msg/get?k=html&m=0&cb=f", "/msg/get?key=html&mid=0", "/1/msg/get?k=html&m=0"):
        body = (await server.ask("public", "GET", target)).body
        assert not any(raw in body for raw in (b"<", b">", b"&", "\u2028".encode(), "\u2029".encode()))


TRANSPORT_ERRORS = {
    "POST on a GET route": (
        "public",
        b"POST /1/time/get HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        405,
    ),
    "unknown path": ("public", b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "path with dots": ("public", b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "admin path on the public port": (
        "public",
        b"POST /1/admin/push/private?key=a&expire=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        404,
    ),
    "second admin path on the public port": (
        "public",
        b"POST /2/admin/push HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        404,
    ),
    "public path on the admin port": ("admin", b"GET /1/time/get HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "GET on a POST route": (
        "admin",
        b"GET /1/admin/push/private?key=a&expire=0 HTTP/1.1\r\nHost: a\r\n\r\n",
        405,
    ),
    "bad request line": ("public", b"hello\r\n\r\n", 400),
    "unknown version": ("public", b"GET /1/time/get HTTP/9.9\r\nHost: a\r\n\r\n", 400),
    "TLS": ("public", bytes.fromhex("160301020001000001fc0303") + bytes(64), 400),
    "bare line feed in a header": (
        "public",
        b"GET /1/time/get HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        400,
    ),
    "negative length": (
        "admin",
        b"POST /1/admin/msg/del HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    "two lengths": (
        "admin",
        b"POST /1/admin/msg/del HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nkey=ab",
        400,
    ),
    "length and chunked": (
        "admin",
        b"POST /1/admin/msg/del HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nkey=a\r\n0\r\n\r\n",
        400,
    ),
    "long header": (
        "public",
        b"GET /1/time/get HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 65_536 + b"\r\n\r\n",
        431,
    ),
    "many headers": (
        "public",
        b"GET /1/time/get HTTP/1.1\r\nHost: a\r\n"
        + b"".join(b"X-%d: y\r\n" % n for n in range(5000))
        + b"\r\n",
        431,
    ),
    "long request line": (
        "public",
        b"GET /1/time/get?" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        414,
    ),
    "unknown path on the status port": ("status", b"GET /stat HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "POST on the status port": (
        "status",
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        405,
    ),
}
# Where two codes say the same.
ALSO_GOOD = {414: {400, 431}, 431: {400}, 400: {505}}


@pytest.mark.parametrize("name", TRANSPORT_ERRORS)
async def test_bad_request_gets_its_http_status(server: Server, name: str) -> None:
    kind, data, status = TRANSPORT_ERRORS[name]
    peer = await Peer.connect(server.addresses[kind])
    try:
        with contextlib.suppress(ConnectionError):
            await peer.send(data)
        async with asyncio.timeout(ENDS_WITHIN_S):
            answer = await read_response(peer)
    finally:
        await peer.close()
    assert answer.status in {status} | ALSO_GOOD.get(status, set())


# -- subscriber tokens


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for subscriber tokens, and soon loses patience with bad ones."""
    config = '[auth]\nsecrets = ["s3cret-1", "s3cret-2"]\n[web]\ntoken_failures_per_minute = 5\n'
    with running(Server(tmp_path_factory.mktemp("guarded"), config=config)) as started:
        yield started


async def test_stored_messages_are_only_told_with_the_token_of_their_key(guarded: Server) -> None:
    assert await guarded.push("bob", "secret", 600) == 0
    good = mint("s3cret-2", Key("bob"), 4_000_000_000)
    for target in (f"/1/msg/get?k=bob&m=0&token={good}", f"/msg/get?key=bob&mid=0&token={good}"):
        assert b"secret" in (await guarded.ask("public", "GET", target)).body
    refused = ["", "x", mint("s3cret-1", Key("bob"), 1), mint("s3cret-1", Key("eve"), 4_000_000_000)]
    for token in refused:
        answer = await guarded.ask("public", "GET", f"/1/msg/get?k=bob&m=0&token={token}")
        assert answer.json == {"ret": 65534}
    # Its address has shown a good one: whoever guesses from there keeps nobody waiting.
    for token in ("guess", "guess", good):
        answer = await guarded.ask("public", "GET", f"/1/msg/get?k=bob&m=0&token={token}")
    assert b"secret" in answer.body
    assert "s3cret" not in guarded.log
    assert b"s3cret" not in (await guarded.ask("status", "GET", "/metrics")).body


@pytest.mark.parametrize("kind", ["public", "admin"])
@pytest.mark.parametrize("data", [b"", b"GET /1/ti", b"GET / HTTP/1.1\r\nHost: a\r\nX-"])
async def test_incomplete_head_is_closed_at_its_deadline(server: Server, kind: str, data: bytes) -> None:
    answer = await answer_of(server, kind, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
