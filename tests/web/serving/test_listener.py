"""web/serving/listener.py and web/serving/request.py: HTTP on the wire, and what bounds it."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.http import read_response
from tests.support.peer import Peer
from tests.support.services import ScriptedComet
from tests.support.web import Web, running_system, running_web
from tests.web.conftest import no_messages
from tests.web.serving.listener_requests import PUSH, connect, post


async def test_answers_carry_length_type_and_date_and_nothing_else(web: Web) -> None:
    response = await web.push("k")
    assert response.headers["content-length"] == str(len(response.body))
    assert set(response.headers) == {"content-type", "x-content-type-options", "content-length", "date"}
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", response.headers["date"])


async def test_connection_serves_request_after_request(web: Web, comet: ScriptedComet) -> None:
    peer = await connect(web)
    for _ in range(3):
        await peer.send(post(PUSH, b"1"))
        assert (await read_response(peer)).body == b'{"ret":0}'
    await peer.send(post(PUSH, b"2") + post(PUSH, b"3"))
    assert [(await read_response(peer)).body for _ in range(2)] == [b'{"ret":0}'] * 2
    assert [push.payload for push in comet.pushes] == [b"1", b"1", b"1", b"2", b"3"]
    await peer.close()


async def test_connection_closes_when_asked(web: Web) -> None:
    peer = await connect(web)
    await peer.send(post(PUSH, b"1", "Connection: close"))
    assert (await peer.read_to_end()).endswith(b'{"ret":0}')
    await peer.close()


async def test_http_1_0_is_answered_as_such(web: Web) -> None:
    peer = await connect(web)
    await peer.send(b"POST %b HTTP/1.0\r\nContent-Length: 1\r\n\r\n1" % PUSH.encode())
    answer = await peer.read_to_end()
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b'{"ret":0}')
    await peer.close()
    peer = await connect(web)
    for _ in range(2):
        await peer.send(
            b"POST %b HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1" % PUSH.encode()
        )
        assert (await read_response(peer)).headers["connection"] == "keep-alive"
    await peer.close()


async def test_proxies_may_send_the_whole_address(web: Web) -> None:
    peer = await connect(web)
    await peer.send(post(f"http://admin.example{PUSH}", b"1"))
    assert (await read_response(peer)).body == b'{"ret":0}'
    await peer.close()


async def test_head_has_no_body(web: Web) -> None:
    peer = await connect(web)
    await peer.send(b"HEAD /1/admin/push/private HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    answer = await peer.read_to_end()
    assert b"405 Method Not Allowed" in answer
    assert answer.endswith(b"\r\n\r\n")
    await peer.close()


async def test_expected_continue_comes_before_the_body(web: Web) -> None:
    peer = await connect(web)
    request = post(PUSH, b"1", "Expect: 100-continue")
    await peer.send(request[:-1])
    assert await peer.read_exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await peer.send(request[-1:])
    assert (await read_response(peer)).body == b'{"ret":0}'
    await peer.close()


async def test_request_may_come_byte_by_byte_and_chunked(web: Web, comet: ScriptedComet) -> None:
    peer = await connect(web)
    head = f"POST {PUSH} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for byte in head + b"1\r\n[\r\n2\r\n1]\r\n0\r\n\r\n":
        await peer.send(bytes([byte]))
    assert (await read_response(peer)).body == b'{"ret":0}'
    assert comet.pushes[0].payload == b"[1]"
    await peer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"POST / HTTP/9.9\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * 70 + b"\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    ],
)
async def test_what_is_no_request_is_answered_and_closed(
    web: Web, comet: ScriptedComet, request_bytes: bytes, status: int
) -> None:
    peer = await connect(web)
    await peer.send(request_bytes)
    answer = await peer.read_to_end()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert not comet.pushes
    await peer.close()


async def test_silent_and_dripping_heads_are_given_up() -> None:
    async with running_web({}, no_messages(), header_timeout_s=0.2) as web:
        silent, dripping, idle = [await connect(web) for _ in range(3)]
        await idle.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await read_response(idle)).status == 404

        async def drip() -> None:
            for byte in b"GET /x HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                dripping.writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        drops = asyncio.create_task(drip())
        answers = await asyncio.gather(silent.read_to_end(), dripping.read_to_end())
        drops.cancel()
        await asyncio.gather(drops, return_exceptions=True)
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        # Between requests a connection may idle for longer than a head may take.
        await idle.send(b"GET /x HTTP/1.1\r\nHost: a\r\n")
        await idle.send(b"\r\n")
        assert (await read_response(idle)).status == 404
        # But the head of a later request has its time too.
        await idle.send(b"GET /x HTTP/1.1\r\n")
        assert (await idle.read_to_end()).startswith(b"HTTP/1.1 408 ")
        for peer in (silent, dripping, idle):
            await peer.close()


async def test_idle_connections_are_closed() -> None:
    async with running_web({}, no_messages(), keep_alive_s=0.1) as web:
        peer = await connect(web)
        await peer.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"404 page not found" in await peer.read_to_end()
        await peer.close()


async def test_body_that_does_not_come_is_answered_and_nothing_is_pushed(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), body_timeout_s=0.1) as web:
        peer = await connect(web)
        await peer.send(post(PUSH, b'{"a":1}', length=100))
        answer = await peer.read_to_end()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b'{"ret":65535}')
        assert not comet.pushes
        assert web.counted("http_refusals_total", "body_timeout") == 1
        await peer.close()


async def test_body_with_a_malformed_chunk_is_400_at_once(web: Web, comet: ScriptedComet) -> None:
    peer = await connect(web)
    await peer.send(f"POST {PUSH} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    await eventually(lambda: web.admin_listener.in_progress)
    await peer.send(b"1\r\n1\r\nzz\r\n")
    assert (await peer.read_to_end()).startswith(b"HTTP/1.1 400 ")
    assert not comet.pushes
    await peer.close()


@pytest.mark.parametrize("is_announced", [True, False])
async def test_body_over_its_limit_is_413_without_reading_it_all(
    comet: ScriptedComet, is_announced: bool
) -> None:
    async with running_web({"comet-1": comet}, no_messages(), max_payload_bytes=100_000) as web:
        peer = await connect(web)
        if is_announced:
            await peer.send(post(PUSH, b'"', length=200_000))
        else:
            head = f"POST {PUSH} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
            await peer.send(head.encode() + b"30000\r\n" + b"x" * 0x30000 + b"\r\n")
        answer = await peer.read_to_end()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b'{"ret":65534}')
        assert not comet.pushes
        await peer.close()


async def test_small_body_over_a_small_limit_is_413_too(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), max_payload_bytes=64) as web:
        assert (await web.push("k", b'"' + b"x" * 100 + b'"')).status == 413
        assert (await web.push("k", b'"' + b"x" * 60 + b'"')).json == {"ret": 0}


async def test_compressed_bodies_are_not_unpacked(web: Web, comet: ScriptedComet) -> None:
    response = await web.ask("admin", "POST", PUSH, b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip"})
    assert response.json == {"ret": 65534}
    assert not comet.pushes


async def test_requests_beyond_the_limit_are_503_and_service_returns(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with running_web({"comet-1": comet}, no_messages(), max_requests=2) as web:
        busy = [await connect(web) for _ in range(2)]
        for peer in busy:
            await peer.send(post(PUSH, b"1"))
        await eventually(lambda: comet.held_count == 2)
        refused = await web.push("k")
        assert (refused.status, refused.json) == (503, {"ret": 65535})
        in_v2 = await web.admin("GET", "/2/admin/nodes")
        assert (in_v2.status, in_v2.json["error"]["code"]) == (503, "unavailable")
        comet.is_holding = False
        comet.release(2)
        for peer in busy:
            assert (await read_response(peer)).body == b'{"ret":0}'
            await peer.close()
        assert (await web.push("k")).json == {"ret": 0}


async def test_client_that_was_refused_and_goes_leaves_no_connection(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with running_web({"comet-1": comet}, no_messages(), max_requests=1, keep_alive_s=3600.0) as web:
        busy, refused = await connect(web), await connect(web)
        await busy.send(post(PUSH, b"1"))
        await eventually(lambda: comet.held_count)
        await refused.send(post(PUSH, b"1"))
        assert (await read_response(refused)).status == 503
        refused.writer.write_eof()
        assert await refused.read_to_end() == b""
        comet.release()
        assert (await read_response(busy)).body == b'{"ret":0}'
        await busy.close()
        await refused.close()


async def test_bytes_of_bodies_beyond_the_limit_are_refused(comet: ScriptedComet) -> None:
    comet.is_holding = True
    big = b'"' + b"x" * 600_000 + b'"'
    async with running_web({"comet-1": comet}, no_messages(), max_buffered_bytes=1_000_000) as web:
        first = await connect(web)
        await first.send(post(PUSH, big))
        await eventually(lambda: comet.held_count)
        assert web.counted("http_buffered_bytes") == len(big)
        assert (await web.push("k", big)).json == {"ret": 65535}
        comet.is_holding = False
        comet.release()
        assert (await read_response(first)).body == b'{"ret":0}'
        await eventually(lambda: web.counted("http_buffered_bytes") == 0)
        assert (await web.push("k", big)).json == {"ret": 0}
        await first.close()


async def test_bytes_of_a_body_that_came_at_once_are_counted_too(web: Web, comet: ScriptedComet) -> None:
    comet.is_holding = True
    peer = await connect(web)
    await peer.send(post(PUSH, b'"' + b"x" * 10_000 + b'"'))
    await eventually(lambda: comet.held_count)
    assert web.counted("http_buffered_bytes") == 10_002
    comet.release()
    assert (await read_response(peer)).body == b'{"ret":0}'
    await peer.close()


async def test_full_listener_is_told_once_until_half_of_its_connections_have_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "web.serving.listener")
    async with running_web({}, no_messages(), max_connections=2) as web:
        peers = [await connect(web), await connect(web)]
        await eventually(lambda: web.counted("http_admin_connections") == 2)
        assert not caplog.messages
        for _ in range(3):
            refused = await connect(web)
            assert await refused.read_to_end() == b""
            await refused.close()
        assert caplog.messages == ["full: 2 connections of the admin API, more are closed at once"]
        await peers.pop().close()
        await eventually(lambda: len(caplog.messages) == 2)
        assert caplog.messages[1] == "no longer full: 1 connections of the admin API"
        await peers.pop().close()


async def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async with running_web({}, no_messages(), max_connections=1) as web:
        first = await connect(web)
        await eventually(lambda: web.counted("http_admin_connections") == 1)
        second = await connect(web)
        assert await second.read_to_end() == b""
        await first.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await read_response(first)).status == 404
        await first.close()
        await second.close()


async def test_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    payload = b'"' + b"x" * 900_000 + b'"'
    async with running_system(tmp_path, send_timeout_s=0.1) as system:
        for _ in range(4):
            assert (await system.push("k", payload, 60)).json == {"ret": 0}
        peer = await Peer.connect(system.address("public"), receive_buffer_bytes=4096)
        for _ in range(4):
            await peer.send(b"GET /1/msg/get?k=k&m=0 HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: not system.counted("http_public_connections"))
        await peer.close()


async def test_requests_in_progress_are_answered_by_a_drain(web: Web, comet: ScriptedComet) -> None:
    comet.is_holding = True
    busy, idle = await connect(web), await connect(web)
    await busy.send(post(PUSH, b"1"))
    await eventually(lambda: comet.held_count)
    drain = asyncio.create_task(web.node.drain(5.0))
    await eventually(lambda: web.admin_listener.is_draining)
    with pytest.raises(OSError):
        await connect(web)
    comet.release()
    answer = await busy.read_to_end()
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b'{"ret":0}')
    await drain
    await web.node.stop()
    assert await idle.read_to_end() == b""
    await busy.close()
    await idle.close()


async def test_drain_does_not_wait_for_ever(
    web: Web, comet: ScriptedComet, caplog: pytest.LogCaptureFixture
) -> None:
    comet.is_holding = True
    busy = await connect(web)
    await busy.send(post(PUSH, b"1"))
    await eventually(lambda: comet.held_count)
    await web.node.drain(0.05)
    assert "not answered in time" in caplog.text
    await web.node.stop()
    await busy.close()
