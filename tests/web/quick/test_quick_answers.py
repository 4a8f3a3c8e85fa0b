"""Pushes that go the short way are answered, and end, as the usual way would have it."""

from __future__ import annotations

import asyncio

import pytest

from cluster.contracts.comet import PushReply
from cluster.errors import OverloadedError, StorageError, UnavailableError
from tests.support.eventually import eventually
from tests.support.http import read_response
from tests.support.peer import Peer
from tests.support.services import Fate, ScriptedComet, failing, not_owner
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages
from tests.web.quick.quick_requests import post, quick_connections, unanswered, warm


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


async def test_push_that_takes_longer_than_connections_may_idle_is_answered(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), keep_alive_s=1.0) as web:
        peer = await unanswered(web, comet, post(b"1"))
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
    peer = await unanswered(web, comet, post(b"1"))
    peer.writer.write_eof()
    # The end has arrived before the answer when another connection has been served.
    await (await Peer.connect(web.address("admin"))).close()
    comet.release()
    assert (await peer.read_to_end()).endswith(b'{"ret":0}')
    await peer.close()


async def test_what_stands_behind_a_push_before_the_end_is_answered_too(
    web: Web, comet: ScriptedComet
) -> None:
    peer = await unanswered(web, comet, post(b"1"))
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
    peer = await unanswered(web, comet, post(b"1"))
    await peer.reset()
    await eventually(lambda: not web.admin_listener.connection_count)
    comet.release()
    await eventually(lambda: not web.admin_listener.in_progress)
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
    assert not web.admin_listener.in_progress
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
    peer = await unanswered(web, comet, post(b"1"))
    drain = asyncio.create_task(web.node.drain(5.0))
    await eventually(lambda: web.admin_listener.is_draining)
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
    await eventually(lambda: web.admin_listener.in_progress)
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
