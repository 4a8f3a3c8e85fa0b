"""web/quick/quickconnection.py: when pushes go the short way, and what arrives meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.eventually import eventually
from tests.support.http import read_response
from tests.support.peer import Peer
from tests.support.services import ScriptedComet
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages
from tests.web.quick.quick_requests import PUSH, post, quick_connections, unanswered, warm
from web.quick.quickconnection import QuickConnection
from web.serving.request import Request

HALF = b"GET /nowhere HTTP/1.1\r\nX: "


async def check_is_no_push(peer: Peer, comet: ScriptedComet) -> None:
    """What looks like a push ends the head of HALF."""
    begun = len(comet.pushes)
    await peer.send(PUSH)
    assert (await read_response(peer)).status == 404
    assert len(comet.pushes) == begun
    await peer.close()


async def test_what_stands_behind_an_unanswered_push_waits_its_turn(web: Web, comet: ScriptedComet) -> None:
    peer = await unanswered(web, comet, post(b"2"))
    count = 2000
    sending = asyncio.create_task(peer.send(b"".join(post(b"%d" % n) for n in range(count))))
    comet.is_holding = False
    comet.release()
    for _ in range(1 + count):
        assert (await read_response(peer)).body == b'{"ret":0}'
    await sending
    assert [push.payload for push in comet.pushes[2:]] == [b"%d" % n for n in range(count)]
    await peer.close()


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
    await check_is_no_push(peer, comet)


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
    await check_is_no_push(peer, comet)


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
    (connection,) = quick_connections(web)
    assert connection._pending is not None
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
    await eventually(lambda: not web.admin_listener.connection_count)
    assert (len(comet.pushes), connection._behind) == (1, b"")
    await peer.close()


async def test_long_body_that_is_refused_unread_does_not_keep_its_connection(
    comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.serving.listener.LINGER_S", 60.0)
    async with running_web({"comet-1": comet}, no_messages()) as web:
        peer = await Peer.connect(web.address("admin"))
        await eventually(lambda: quick_connections(web))
        (connection,) = quick_connections(web)
        # More than aiohttp keeps of a body, so its parser waits at the end of this until it is read.
        connection.data_received(post(b"1" * 600_000, target="/nowhere"))
        assert b" 404 " in await peer.read_to_end()
        await peer.close()
