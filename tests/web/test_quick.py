"""web/quick.py: what goes the short way, and that nobody can tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from cluster.contracts.comet import PushReply
from cluster.errors import OverloadedError, StorageError, UnavailableError
from cluster.members import Members
from cluster.model import Key
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from tests.support.eventually import eventually
from tests.support.http import read_response
from tests.support.peer import Peer
from tests.support.services import Fate, ScriptedComet, failing, not_owner
from tests.support.web import Web, comet_info, running_web
from tests.web.conftest import no_messages
from web.access import Access
from web.limits import FailureLimiter
from web.metrics import WebMetrics
from web.owners import Owners
from web.push import Pusher
from web.quick import MAX_BODY_BYTES, MAX_SECTIONS, QuickConnection, QuickPushes
from web.request import Request

TARGET = "/1/admin/push/private?key=k&expire=0"
HEAD = b"POST /1/admin/push/private?key=k&expire=60 HTTP/1.1\r\n"
TOKEN = "Authorization: Bearer s3cret"


class Quick:
    """The recogniser in front of a scripted comet node."""

    def __init__(self, token: str = "") -> None:
        self.comet = ScriptedComet()
        self.registry = MemoryRegistry()
        self.members = Members(self.registry)
        metrics = WebMetrics(Stats())
        owners = Owners(self.members, lambda _: self.comet, timeout_s=5.0, attempt_s=3.0)
        self.pusher = Pusher(owners, metrics, "web-", 3600)
        access = Access((), token, refuses_foreign=True, methods="POST")
        limiter = FailureLimiter(60, time.monotonic)
        limiter.trust("127.0.0.1")
        self.pushes = QuickPushes(self.pusher, access, metrics, 64, limiter)

    def begins(self, data: bytes, host: str = "127.0.0.1") -> bool:
        return self.pushes.begin(data, (host, 12345)) is not None


@pytest.fixture
async def quick() -> Quick:
    made = Quick()
    await made.registry.register(comet_info("comet-1"))
    return made


@pytest.fixture
async def guarded() -> Quick:
    return Quick("s3cret")


def post(body: bytes, *lines: str, target: str = TARGET) -> bytes:
    head = [f"POST {target} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def warm(web: Web) -> Peer:
    """A connection whose first request was answered: what follows may go the short way."""
    peer = await Peer.connect(web.address("admin"))
    await peer.send(post(b"1"))
    assert (await read_response(peer)).body == b'{"ret":0}'
    return peer


def quick_connections(web: Web) -> list[QuickConnection]:
    server = web.node._admin._web_server
    assert server is not None
    return [one for one in server.connections if isinstance(one, QuickConnection)]


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD + b"host:a\r\ncontent-length:   3 \r\nContent-Type: application/json\r\n\r\n[1]",
        HEAD + b"Host: a\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\nUser-Agent: x/1 (y)\r\n\r\n[1]",
        b"POST /admin/push?key=k&expire=60 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n[1]",
    ],
)
async def test_plain_push_is_recognised(quick: Quick, data: bytes) -> None:
    assert quick.begins(data)
    push = quick.comet.pushes[0]
    assert (push.keys, push.payload, push.expire_s, push.id_ttl_s) == (["k"], b"[1]", 60, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n[1",
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]P",
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n{1]",
        HEAD + b"Host: a\r\n\r\n[1]",
        HEAD + b"Content-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nHost: b\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: +3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nOrigin: http://a\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nUpgrade: h2c\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length : 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\n Content-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nX: \xff\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\nX: y\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nX: " + b"x" * 4096 + b"\r\n\r\n[1]",
        HEAD + b'Host: a\r\nContent-Length: 66\r\n\r\n"' + b"x" * 64 + b'"',
        HEAD.replace(b"1.1", b"1.0") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"POST", b"GET") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"private", b"mprivate") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"private", b"private/") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"/1", b"http://a/1") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"key=k", b"key=") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"key=k", b"key=k#") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"=60", b"=-1") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b" HTTP", b"  HTTP") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
    ],
)
async def test_everything_else_goes_the_usual_way_and_nothing_is_pushed(quick: Quick, data: bytes) -> None:
    # Twice, because header sections are remembered.
    assert not quick.begins(data)
    assert not quick.begins(data)
    assert not quick.comet.pushes


async def test_push_without_a_comet_node_goes_the_usual_way() -> None:
    assert not Quick().begins(post(b"1"))


async def test_large_body_goes_the_usual_way(quick: Quick) -> None:
    assert not quick.begins(post(b" " * MAX_BODY_BYTES + b"1"))


@pytest.mark.parametrize(
    "query",
    [
        "key=k&expire=60",
        "expire=60&key=k",
        "key=%6b&expire=060",
        "key=k&expire=60&x=1",
        "x=1&key=k&expire=60",
    ],
)
async def test_key_and_expire_are_the_same_however_they_are_written(quick: Quick, query: str) -> None:
    assert quick.begins(post(b"1", target=f"/1/admin/push/private?{query}"))
    (push,) = quick.comet.pushes
    assert (push.keys, push.expire_s) == ([Key("k")], 60)


@pytest.mark.parametrize(
    ("query", "is_begun"),
    [
        (f"key={'k' * 512}&expire=0", True),
        (f"key={'k' * 513}&expire=0", False),
        ("key=&expire=0", False),
        ("key=k&expire=4294967295", True),
        ("key=k&expire=4294967296", False),
        ("key=k&expire=999999999", True),
        ("key=k&expire=", False),
        ("key=k&expire=-1", False),
    ],
)
async def test_bounds_of_the_parameters_hold(quick: Quick, query: str, is_begun: bool) -> None:
    assert quick.begins(post(b"1", target=f"/1/admin/push/private?{query}")) is is_begun


async def test_token_is_asked_for_each_time(guarded: Quick) -> None:
    await guarded.registry.register(comet_info("comet-1"))
    assert guarded.begins(post(b"1", TOKEN))
    # Who has not shown the token yet may be guessing: the usual way counts.
    assert not guarded.begins(post(b"1", TOKEN), "10.0.0.7")
    assert not guarded.begins(post(b"1"))
    assert not guarded.begins(post(b"1", TOKEN + "x"))
    assert guarded.begins(post(b"1", TOKEN))


async def test_remembered_header_sections_are_bounded(quick: Quick) -> None:
    for number in range(MAX_SECTIONS * 2):
        assert quick.begins(post(b"1", f"X-Request-Id: {number}"))
    assert len(quick.pushes._lengths) <= MAX_SECTIONS


async def test_both_ways_answer_the_same(web: Web, comet: ScriptedComet) -> None:
    peer = await Peer.connect(web.address("admin"))
    answers = []
    for _ in range(3):
        await peer.send(post(b'{"a": 1}'))
        response = await read_response(peer)
        answers.append((response.status, sorted(response.headers.items()), response.body))
    # The date may have changed between them; a third cannot differ from both.
    assert answers[2] in answers[:2]
    assert [push.payload for push in comet.pushes] == [b'{"a":1}'] * 3
    assert len({push.push_id for push in comet.pushes}) == 3
    assert web.counted("http_pushes_total", "ok") == 3
    assert web.counted("http_requests_total", "/1/admin/push/private") == 3
    await peer.close()


async def test_what_stands_behind_an_unanswered_push_waits_its_turn(web: Web, comet: ScriptedComet) -> None:
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(post(b"2"))
    await eventually(lambda: comet.held_count)
    count = 2000
    sending = asyncio.create_task(peer.send(b"".join(post(b"%d" % n) for n in range(count))))
    comet.is_holding = False
    comet.release()
    for _ in range(1 + count):
        assert (await read_response(peer)).body == b'{"ret":0}'
    await sending
    assert [push.payload for push in comet.pushes[2:]] == [b"%d" % n for n in range(count)]
    await peer.close()


PUSH = b"POST /1/admin/push/private?key=k&expire=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"
HALF = b"GET /nowhere HTTP/1.1\r\nX: "


@pytest.mark.parametrize(
    "first",
    [
        b"GET /2/admin/nodes HTTP/1.1\r\nHost: a\r\n\r\n" + HALF,
        PUSH + HALF,
        PUSH.replace(b"Content-Length: 1\r\n\r\n1", b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n")
        + HALF,
    ],
)
async def test_what_looks_like_a_push_within_the_head_of_another_request_is_none(
    web: Web, comet: ScriptedComet, first: bytes
) -> None:
    peer = await Peer.connect(web.address("admin"))
    await peer.send(first)
    assert (await read_response(peer)).status == 200
    begun = len(comet.pushes)
    await peer.send(PUSH)
    assert (await read_response(peer)).status == 404
    assert len(comet.pushes) == begun
    await peer.close()


async def test_head_that_stands_behind_a_pushed_body_in_several_reads_is_none_of_a_push(
    web: Web, comet: ScriptedComet
) -> None:
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(PUSH[:-1])
    await peer.send(b"1" + HALF)
    await eventually(lambda: comet.held_count)
    comet.is_holding = False
    comet.release()
    assert (await read_response(peer)).body == b'{"ret":0}'
    begun = len(comet.pushes)
    await peer.send(PUSH)
    assert (await read_response(peer)).status == 404
    assert len(comet.pushes) == begun
    await peer.close()


async def test_head_behind_a_connect_that_announces_a_body_is_none_of_a_push(
    web: Web, comet: ScriptedComet
) -> None:
    peer = await Peer.connect(web.address("admin"))
    await eventually(lambda: quick_connections(web))
    (connection,) = quick_connections(web)
    # Two reads, before aiohttp declines.
    connection.data_received(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HALF))
    connection.data_received(HALF)
    assert (await read_response(peer)).status == 404
    await peer.send(PUSH)
    assert (await read_response(peer)).status == 404
    assert not comet.pushes
    await peer.close()


@pytest.mark.parametrize("parts", [(PUSH,), (PUSH[:-1], b"1")])
async def test_pushes_go_the_short_way_after_whole_requests(
    web: Web, comet: ScriptedComet, parts: tuple[bytes, ...]
) -> None:
    peer = await warm(web)
    comet.is_holding = True
    for part in parts:
        await peer.send(part)
        # Alone in its read when another connection has been served.
        await (await Peer.connect(web.address("admin"))).close()
    await eventually(lambda: comet.held_count)
    comet.is_holding = False
    comet.release()
    assert (await read_response(peer)).body == b'{"ret":0}'
    comet.is_holding = True
    await peer.send(PUSH)
    await eventually(lambda: comet.held_count)
    assert [c._pending for c in quick_connections(web)] != [None]
    comet.release()
    assert (await read_response(peer)).body == b'{"ret":0}'
    await peer.close()


async def send_at_once(
    web: Web,
    comet: ScriptedComet,
    monkeypatch: pytest.MonkeyPatch,
    follow: Callable[[QuickConnection], object],
) -> tuple[Peer, QuickConnection]:
    """Have something arrive behind the answer to a push that went the usual way, before aiohttp is back."""
    comet.is_holding = True
    peer = await Peer.connect(web.address("admin"))
    await peer.send(PUSH)
    await eventually(lambda: comet.held_count)
    (connection,) = quick_connections(web)
    write = Request.write

    async def write_and_follow(request: Request, data: bytes, timeout_s: float) -> None:
        asyncio.get_running_loop().call_soon(follow, connection)
        await write(request, data, timeout_s)

    monkeypatch.setattr(Request, "write", write_and_follow)
    comet.is_holding = False
    comet.release()
    assert (await read_response(peer)).body == b'{"ret":0}'
    return peer, connection


async def test_refused_request_is_handled_as_any_other(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with running_web({"comet-1": comet}, no_messages(), max_requests=1) as web:
        busy = await Peer.connect(web.address("admin"))
        await busy.send(PUSH)
        await eventually(lambda: comet.held_count)
        refused = await Peer.connect(web.address("admin"))
        await refused.send(PUSH)
        assert (await read_response(refused)).status == 503
        comet.is_holding = False
        comet.release()
        assert (await read_response(busy)).body == b'{"ret":0}'
        # Otherwise none of its connection's pushes that follow an answer at once goes the short way again.
        assert {one._request_count - one.handled for one in quick_connections(web)} == {0}
        await busy.close()
        await refused.close()


@pytest.mark.parametrize("parts", [(PUSH,), (PUSH[:20], PUSH[20:])])
async def test_push_that_follows_an_answer_at_once_goes_the_short_way(
    web: Web, comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    def follow(connection: QuickConnection) -> None:
        assert connection._is_returning()
        for part in parts:
            connection.data_received(part)

    peer, connection = await send_at_once(web, comet, monkeypatch, follow)
    assert (await read_response(peer)).body == b'{"ret":0}'
    assert len(comet.pushes) == 2
    assert connection._request_count == 1
    await peer.close()


async def test_other_request_that_follows_an_answer_at_once_is_answered(
    web: Web, comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
    peer, _ = await send_at_once(web, comet, monkeypatch, lambda connection: connection.data_received(other))
    monkeypatch.undo()
    assert (await read_response(peer)).status == 404
    await peer.send(PUSH)
    assert (await read_response(peer)).body == b'{"ret":0}'
    await peer.close()


@pytest.mark.parametrize(
    ("last", "answer", "pushes"),
    [
        (PUSH, b'{"ret":0}', 2),
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", b"404 page not found\n", 1),
        (PUSH[:-1], b"", 1),
    ],
)
async def test_client_that_sends_its_last_request_at_once_and_shuts_down_its_side_is_answered(
    web: Web,
    comet: ScriptedComet,
    monkeypatch: pytest.MonkeyPatch,
    last: bytes,
    answer: bytes,
    pushes: int,
) -> None:
    def follow(connection: QuickConnection) -> None:
        connection.data_received(last)
        assert connection.eof_received()
        monkeypatch.undo()

    peer, _ = await send_at_once(web, comet, monkeypatch, follow)
    said = await peer.read_to_end()
    assert said.endswith(answer)
    assert bool(said) == bool(answer)
    assert len(comet.pushes) == pushes
    await peer.close()


async def test_client_that_sends_a_long_last_request_at_once_and_shuts_down_its_side_is_answered(
    web: Web, comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More chunks than aiohttp keeps of a body.
    chunks = b"".join(b"1\r\n%b\r\n" % byte for byte in [b"1"] + [b" "] * 20_000) + b"0\r\n\r\n"
    last = PUSH.replace(b"Content-Length: 1\r\n\r\n1", b"Transfer-Encoding: chunked\r\n\r\n") + chunks

    def follow(connection: QuickConnection) -> None:
        connection.data_received(last)
        if connection.transport is not None and connection.transport.is_reading():
            connection.eof_received()
        monkeypatch.undo()

    peer, _ = await send_at_once(web, comet, monkeypatch, follow)
    peer.writer.write_eof()
    assert (await peer.read_to_end()).endswith(b'{"ret":0}')
    assert len(comet.pushes) == 2
    await peer.close()


async def test_connection_that_ends_behind_a_push_that_follows_at_once_pushes_nothing(
    web: Web, comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(connection: QuickConnection) -> None:
        connection.data_received(PUSH)
        connection.force_close()

    peer, connection = await send_at_once(web, comet, monkeypatch, follow)
    assert await peer.read_to_end() == b""
    await eventually(lambda: not web.node._admin.connection_count)
    assert (len(comet.pushes), connection._behind) == (1, b"")
    await peer.close()


async def test_long_body_that_is_refused_unread_does_not_keep_its_connection(
    comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.listener.LINGER_S", 60.0)
    async with running_web({"comet-1": comet}, no_messages()) as web:
        peer = await Peer.connect(web.address("admin"))
        await eventually(lambda: quick_connections(web))
        (connection,) = quick_connections(web)
        # More than aiohttp keeps of a body, so its parser waits at the end of this until it is read.
        connection.data_received(post(b"1" * 600_000, target="/nowhere"))
        assert b" 404 " in await peer.read_to_end()
        await peer.close()


async def test_push_that_takes_longer_than_connections_may_idle_is_answered(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), keep_alive_s=1.0) as web:
        peer = await warm(web)
        comet.is_holding = True
        await peer.send(post(b"1"))
        await eventually(lambda: comet.held_count)
        (connection,) = quick_connections(web)
        # As the timer does when the time is up.
        connection._next_keepalive_close_time = 0.0
        connection._process_keepalive()
        comet.release()
        assert (await read_response(peer)).body == b'{"ret":0}'
        await peer.close()


async def test_more_header_fields_than_the_usual_way_takes_are_refused(
    web: Web, comet: ScriptedComet
) -> None:
    peer = await warm(web)
    await peer.send(post(b"1", *(f"a{n}: 1" for n in range(63))))
    assert b" 431 " in await peer.read_to_end()
    assert len(comet.pushes) == 1
    await peer.close()


async def test_client_that_has_shut_down_its_side_is_answered(web: Web, comet: ScriptedComet) -> None:
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(post(b"1"))
    await eventually(lambda: comet.held_count)
    peer.writer.write_eof()
    # The end has arrived before the answer when another connection has been served.
    await (await Peer.connect(web.address("admin"))).close()
    comet.release()
    assert (await peer.read_to_end()).endswith(b'{"ret":0}')
    await peer.close()


async def test_what_stands_behind_a_push_before_the_end_is_answered_too(
    web: Web, comet: ScriptedComet
) -> None:
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(post(b"1"))
    await eventually(lambda: comet.held_count)
    peer.writer.write(post(b"2") + b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" + post(b"3"))
    peer.writer.write_eof()
    # They have arrived before the answer when another connection has been served.
    await (await Peer.connect(web.address("admin"))).close()
    comet.is_holding = False
    comet.release()
    assert [(await read_response(peer)).status for _ in range(4)] == [200, 200, 404, 200]
    assert await peer.read_to_end() == b""
    assert [push.payload for push in comet.pushes[1:]] == [b"1", b"2", b"3"]
    await peer.close()


async def test_push_goes_on_when_its_client_goes_away(web: Web, comet: ScriptedComet) -> None:
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(post(b"1"))
    await eventually(lambda: comet.held_count)
    await peer.reset()
    await eventually(lambda: not web.node._admin.connection_count)
    comet.release()
    await eventually(lambda: not web.node._admin.in_progress)
    assert web.counted("http_pushes_total", "ok") == 2


@pytest.mark.parametrize(
    ("fates", "body"),
    [
        ([failing({"k": "storage"})], b'{"ret":65535}'),
        ([StorageError("full")], b'{"ret":65535}'),
        ([OverloadedError("full")], b'{"ret":65535}'),
        ([UnavailableError("draining")], b'{"ret":0}'),
        ([not_owner()], b'{"ret":0}'),
        ([failing({"k": "not_owner"})], b'{"ret":0}'),
    ],
)
async def test_push_that_does_not_succeed_is_answered_as_the_usual_way_does(
    web: Web, comet: ScriptedComet, fates: list[Fate], body: bytes
) -> None:
    peer = await warm(web)
    comet.fates.extend(fates)
    await peer.send(post(b"1"))
    assert (await read_response(peer)).body == body
    await peer.send(post(b"1"))
    assert (await read_response(peer)).body == b'{"ret":0}'
    assert not web.node._admin.in_progress
    await peer.close()


async def test_push_that_is_never_answered_is_in_doubt(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), request_timeout_s=0.1) as web:
        peer = await warm(web)
        comet.fates.append(None)
        await peer.send(post(b"1"))
        assert (await read_response(peer)).body == b'{"ret":65535}'
        assert web.counted("http_pushes_total", "failed") == 1
        await peer.close()


async def test_drain_answers_it_and_ends_its_connection(web: Web, comet: ScriptedComet) -> None:
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(post(b"1"))
    await eventually(lambda: comet.held_count)
    drain = asyncio.create_task(web.node.drain(5.0))
    await eventually(lambda: web.node._admin.is_draining)
    comet.release()
    answer = await peer.read_to_end()
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b'{"ret":0}')
    await drain
    await peer.close()


async def test_stop_leaves_no_push_behind(web: Web, comet: ScriptedComet) -> None:
    peer = await warm(web)
    comet.fates.extend([not_owner()] * 100)
    await peer.send(post(b"1"))
    await eventually(lambda: len(comet.pushes) > 2)
    await web.node.stop()
    assert await peer.read_to_end() == b""
    await peer.close()


async def test_push_that_fails_after_the_stop_is_not_tried_again(web: Web, comet: ScriptedComet) -> None:
    peer = await warm(web)
    future: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
    comet.push = lambda _: future  # type: ignore[method-assign]
    await peer.send(post(b"1"))
    await eventually(lambda: web.node._admin.in_progress)
    await web.node.stop()
    tasks = asyncio.all_tasks()
    future.set_exception(UnavailableError("the connection is closed"))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    await peer.close()


async def test_our_own_fault_is_logged_and_answered(
    web: Web, comet: ScriptedComet, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await warm(web)
    future: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
    future.set_exception(ZeroDivisionError("broken"))
    comet.push = lambda _: future  # type: ignore[method-assign]
    await peer.send(post(b"1"))
    assert (await read_response(peer)).body == b'{"ret":65535}'
    assert "broken" in caplog.text
    assert web.counted("http_errors_total") == 1
    await peer.close()
