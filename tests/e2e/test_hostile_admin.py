"""Bad pushes to a running server's admin port, and requests by those who may not push.

More ways of being wrong JSON: tests/web/codec/test_payload.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.e2e.hostile import ENDS_WITHIN_S, SHORT_DEADLINES, answer_of
from tests.support.peer import Peer
from tests.support.system import Server, running

# Of the module's server.
CONFIG = SHORT_DEADLINES


pytestmark = pytest.mark.usefixtures("bystander")


async def assert_nothing_happened(server: Server, key: str) -> None:
    assert await server.fetch(key) == []


BAD_PUSHES = {
    "no key": ("/1/admin/push/private?expire=0", b"{}"),
    "empty key": ("/1/admin/push/private?key=&expire=0", b"{}"),
    "key with a control": ("/1/admin/push/private?key=a%01&expire=0", b"{}"),
    "no expire": ("/1/admin/push/private?key=bad", b"{}"),
    "expire empty": ("/1/admin/push/private?key=bad&expire=", b"{}"),
    "expire negative": ("/1/admin/push/private?key=bad&expire=-1", b"{}"),
    "expire text": ("/1/admin/push/private?key=bad&expire=soon", b"{}"),
    "expire of 33 bits": ("/1/admin/push/private?key=bad&expire=4294967296", b"{}"),
    "mprivate without expire": ("/1/admin/push/mprivate", b'{"m":"1","k":"bad"}'),
    "mprivate not an object": ("/1/admin/push/mprivate?expire=9", b'["bad"]'),
    "mprivate null": ("/1/admin/push/mprivate?expire=9", b"null"),
    "mprivate without keys": ("/1/admin/push/mprivate?expire=9", b'{"m":"1"}'),
    "mprivate keys a number": ("/1/admin/push/mprivate?expire=9", b'{"m":"1","k":5}'),
    "mprivate keys a list": ("/1/admin/push/mprivate?expire=9", b'{"m":"1","k":["bad"]}'),
    "mprivate only commas": ("/1/admin/push/mprivate?expire=9", b'{"m":"1","k":",,,"}'),
    "mprivate without a message": ("/1/admin/push/mprivate?expire=9", b'{"k":"bad"}'),
    "mprivate inner text not JSON": ("/1/admin/push/mprivate?expire=9", b'{"m":"{","k":"bad"}'),
    "mprivate message not a text": ("/1/admin/push/mprivate?expire=9", b'{"m":{},"k":"bad"}'),
    "mprivate truncated": ("/1/admin/push/mprivate?expire=9", b'{"m":"1","k":"bad"'),
    "delete without a key": ("/1/admin/msg/del", b""),
    "delete with an empty key": ("/1/admin/msg/del", b"key="),
    "delete with JSON": ("/1/admin/msg/del", b'{"key":"bad"}'),
}


@pytest.mark.parametrize("name", BAD_PUSHES)
async def test_bad_admin_request_is_65534_and_does_nothing(server: Server, name: str) -> None:
    target, body = BAD_PUSHES[name]
    answer = await server.ask("admin", "POST", target, body)
    assert answer.status == 200
    assert answer.json == {"ret": 65534}
    await assert_nothing_happened(server, "bad")


NOT_ONE_VALUE = {
    "truncated": b"{bad",
    "empty": b"",
    "spaces": b"  ",
    "two values": b"1 2",
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "trailing comma": b"[1,]",
    "comment": b"1 // one",
    "single quotes": b"{'a':1}",
    "text without quotes": b"hello",
    "not UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "encoded surrogate": b'"\xed\xa0\x80"',
    "raw control character": b'"\x01"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "leading zero": b"01",
    "hexadecimal": b"0x10",
}


@pytest.mark.parametrize("name", NOT_ONE_VALUE)
async def test_body_that_is_not_one_json_value_is_65534_and_reaches_nobody(server: Server, name: str) -> None:
    async with server.tcp("reader", version="1.0") as versioned, server.websocket("reader") as old:
        for expire_s in (0, 600):
            assert await server.push("reader", NOT_ONE_VALUE[name], expire_s) == 65534
        # Were there a message, it would come before the answers to these.
        await versioned.beat()
        await old.beat()
    await assert_nothing_happened(server, "reader")


DEEP = {
    "200,000 lists": b"[" * 200_000,
    "200,000 objects": b'{"a":' * 200_000,
    "deep and closed": b"[" * 30_000 + b"]" * 30_000,
    "129 deep": b"[" * 129 + b"]" * 129,
}


@pytest.mark.parametrize("name", DEEP)
async def test_deep_json_is_refused(server: Server, name: str) -> None:
    answer = await server.ask("admin", "POST", "/1/admin/push/private?key=deep&expire=60", DEEP[name])
    assert answer.status == 413 or answer.json == {"ret": 65534}
    await assert_nothing_happened(server, "deep")


async def test_json_of_the_deepest_level_is_delivered(server: Server) -> None:
    payload = b"[" * 128 + b"]" * 128
    async with server.tcp("deep-good", version="1.0") as subscriber:
        assert await server.push("deep-good", payload, 0) == 0
        assert payload in (await subscriber.next_document()).raw


@pytest.mark.parametrize("size", [100_001, 2_000_000])
async def test_payload_over_the_limit_is_413(server: Server, size: int) -> None:
    body = b'"' + b"x" * (size - 2) + b'"'
    answer = await server.ask("admin", "POST", "/1/admin/push/private?key=large&expire=60", body)
    assert answer.status == 413
    await assert_nothing_happened(server, "large")


async def test_payload_that_grows_over_the_limit_by_escaping_is_refused(server: Server) -> None:
    body = b'"' + b"<" * 50_000 + b'"'
    answer = await server.ask("admin", "POST", "/1/admin/push/private?key=grows&expire=60", body)
    assert answer.status == 413 or answer.json == {"ret": 65534}
    await assert_nothing_happened(server, "grows")


async def test_more_than_100000_keys_are_refused(server: Server) -> None:
    body = json.dumps({"m": "1", "k": ",".join(f"m{n}" for n in range(100_001))}).encode()
    answer = await server.ask("admin", "POST", "/1/admin/push/mprivate?expire=0", body)
    assert answer.status == 413 or answer.json == {"ret": 65534}


async def test_body_shorter_than_announced_is_not_pushed(server: Server) -> None:
    head = (
        b"POST /1/admin/push/private?key=short&expire=60 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    )
    answer = await answer_of(server, "admin", head + b'{"a":1}')
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"408")
    await assert_nothing_happened(server, "short")


async def test_body_cut_off_by_the_client_is_not_pushed(server: Server) -> None:
    head = b"POST /1/admin/push/private?key=cut&expire=60 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    peer = await Peer.connect(server.addresses["admin"])
    try:
        await peer.send(head + b'{"a":1}')
        peer.writer.write_eof()
        await peer.read_to_end(ENDS_WITHIN_S)
    finally:
        await peer.close()
    await assert_nothing_happened(server, "cut")


async def test_key_named_often_is_pushed_once_and_keys_are_not_trimmed(server: Server) -> None:
    body = json.dumps({"m": "1", "k": "often,often, often,often ,,often"}).encode()
    answer = await server.ask("admin", "POST", "/1/admin/push/mprivate?expire=60", body)
    assert answer.json == {"ret": 0}
    for key in ("often", " often", "often "):
        assert len(await server.fetch(key)) == 1, repr(key)


async def test_keys_that_cannot_be_come_back_as_failed(server: Server) -> None:
    long_key = "k" * 513
    body = json.dumps({"m": "1", "k": f"fine,{long_key},con\ttrol"}).encode()
    answer = await server.ask("admin", "POST", "/1/admin/push/mprivate?expire=60", body)
    assert answer.json["ret"] == 0
    assert sorted(answer.json["data"]["fk"]) == sorted([long_key, "con\ttrol"])
    assert len(await server.fetch("fine")) == 1


@pytest.mark.parametrize(
    "path", ["/1/admin/push/private?key=web&expire=60", "/2/admin/push", "/1/admin/msg/del?key=a"]
)
async def test_page_of_a_foreign_origin_is_refused_by_the_admin_port(server: Server, path: str) -> None:
    answer = await server.ask("admin", "POST", path, b"{}", {"Origin": "https://evil.example"})
    assert answer.status == 403
    await assert_nothing_happened(server, "web")


async def test_page_of_a_listed_origin_may_push(server: Server) -> None:
    target = "/1/admin/push/private?key=web-good&expire=0"
    answer = await server.ask("admin", "POST", target, b"{}", {"Origin": "https://good.example"})
    assert answer.json == {"ret": 0}


BAD_SECOND_VERSION = {
    "not JSON": b"{",
    "no key": b'{"msg":1,"expire":0}',
    "key and keys": b'{"key":"a","keys":["a"],"msg":1,"expire":0}',
    "no keys": b'{"keys":[],"msg":1,"expire":0}',
    "key a number": b'{"key":1,"msg":1,"expire":0}',
    "no message": b'{"key":"v2bad","expire":0}',
    "expire negative": b'{"key":"v2bad","msg":1,"expire":-1}',
    "expire text": b'{"key":"v2bad","msg":1,"expire":"1"}',
    "expire a fraction": b'{"key":"v2bad","msg":1,"expire":1.5}',
    "unknown member": b'{"key":"v2bad","msg":1,"expire":60,"ttl":5}',
    "id too long": b'{"key":"v2bad","msg":1,"expire":60,"id":"' + b"i" * 129 + b'"}',
    "id empty": b'{"key":"v2bad","msg":1,"expire":60,"id":""}',
    "message deep": b'{"key":"v2bad","expire":60,"msg":' + b"[" * 200 + b"]" * 200 + b"}",
}


@pytest.mark.parametrize("name", BAD_SECOND_VERSION)
async def test_bad_version_2_push_is_a_400_with_a_code(server: Server, name: str) -> None:
    answer = await server.ask("admin", "POST", "/2/admin/push", BAD_SECOND_VERSION[name])
    assert answer.status == 400, answer
    assert set(answer.json["error"]) == {"code", "message"}
    await assert_nothing_happened(server, "v2bad")


async def test_endless_line_of_a_push_stream_is_refused_and_not_held(server: Server) -> None:
    peer = await Peer.connect(server.addresses["admin"])
    try:
        head = b"POST /2/admin/push/stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with contextlib.suppress(ConnectionError, TimeoutError):
            await peer.send(head)
            async with asyncio.timeout(ENDS_WITHIN_S):
                for _ in range(400):
                    peer.writer.write(chunk)
                    await peer.writer.drain()
    finally:
        await peer.close()


# -- an admin port with a token


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose admin API wants a token."""
    described = Server(tmp_path_factory.mktemp("guarded"), config='[web]\nadmin_token = "tok-123"\n')
    with running(described) as started:
        yield started


@pytest.mark.parametrize(
    "authorization", [None, "", "tok-123", "Bearer", "Bearer tok-12", "Bearer tok-1234", "Basic dG9r"]
)
async def test_admin_request_without_the_token_is_401(guarded: Server, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await guarded.ask("admin", "POST", "/1/admin/push/private?key=k&expire=60", b"{}", headers)
    assert answer.status == 401
    assert await guarded.fetch("k") == []


async def test_admin_request_with_the_token_is_done(guarded: Server) -> None:
    headers = {"Authorization": "Bearer tok-123"}
    answer = await guarded.ask("admin", "POST", "/1/admin/push/private?key=k2&expire=60", b"{}", headers)
    assert answer.json == {"ret": 0}


async def test_token_is_not_shown_by_the_log_or_the_metrics(guarded: Server) -> None:
    assert "tok-123" not in guarded.log
    assert b"tok-123" not in (await guarded.ask("status", "GET", "/metrics")).body
