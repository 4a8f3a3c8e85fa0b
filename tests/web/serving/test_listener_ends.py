"""Clients that shut down their side, or go: what was asked before is done, and answered if they read on."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import StreamReader

from tests.support.eventually import eventually
from tests.support.http import read_response
from tests.support.services import ScriptedComet
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages
from tests.web.serving.listener_requests import PUSH, connect, post
from web.serving.connection import Connection
from web.serving.listener import Listener
from web.serving.request import Request, RequestHead


def shut_down_by_client(web: Web) -> bool:
    """Whether the only connection of the admin API has seen its client's end."""
    (connection,) = web.connections()
    return connection._has_ended


async def test_client_that_has_shut_down_its_side_is_answered(web: Web, comet: ScriptedComet) -> None:
    comet.is_holding = True
    peer = await connect(web)
    await peer.send(post(PUSH, b"1"))
    await eventually(lambda: comet.held_count)
    peer.writer.write_eof()
    await eventually(lambda: shut_down_by_client(web))
    comet.release()
    assert (await peer.read_to_end()).endswith(b'{"ret":0}')
    await peer.close()


async def test_push_goes_on_when_its_client_goes_away(web: Web, comet: ScriptedComet) -> None:
    comet.is_holding = True
    peer = await connect(web)
    await peer.send(post(PUSH, b"1"))
    await eventually(lambda: comet.held_count)
    await peer.reset()
    await eventually(lambda: not web.admin_listener.connection_count)
    comet.release()
    await eventually(lambda: web.counted("http_pushes_total", "ok"))


async def test_body_that_ends_early_is_not_pushed(web: Web, comet: ScriptedComet) -> None:
    peer = await connect(web)
    await peer.send(post(PUSH, b"1", length=10))
    peer.writer.write_eof()
    assert await peer.read_to_end() == b""
    assert not comet.pushes
    await peer.close()


@pytest.mark.parametrize("is_first", [True, False])
async def test_client_that_says_at_once_that_it_sends_no_more_is_answered(web: Web, is_first: bool) -> None:
    peer = await connect(web)
    request = post(PUSH, b"1")
    if not is_first:
        await peer.send(post(PUSH, b"1"))
        assert (await read_response(peer)).body == b'{"ret":0}'
        request = b"GET /2/admin/nodes HTTP/1.1\r\nHost: a\r\n\r\n"
    peer.writer.write(request)
    peer.writer.write_eof()
    assert (await peer.read_to_end()).startswith(b"HTTP/1.1 200 ")
    await peer.close()


async def test_all_requests_before_the_end_are_answered(web: Web, comet: ScriptedComet) -> None:
    peer = await connect(web)
    count = 40
    peer.writer.write(b"".join(post(PUSH, b"%d" % n) for n in range(count)))
    peer.writer.write_eof()
    for _ in range(count):
        assert (await read_response(peer)).body == b'{"ret":0}'
    assert await peer.read_to_end() == b""
    assert [push.payload for push in comet.pushes] == [b"%d" % n for n in range(count)]
    await peer.close()


async def test_request_whose_body_and_end_come_before_its_handler_begins_is_answered(
    comet: ScriptedComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_request = Listener._make_request

    def make_and_go_on(
        listener: Listener, message: RequestHead, payload: StreamReader, protocol: Connection, *rest: Any
    ) -> Request:
        # The handler begins in the next turn.
        protocol.data_received(b"1")
        if not protocol.eof_received() and protocol.transport is not None:
            protocol.transport.close()
        return make_request(listener, message, payload, protocol, *rest)

    monkeypatch.setattr(Listener, "_make_request", make_and_go_on)
    async with running_web({"comet-1": comet}, no_messages()) as web:
        peer = await connect(web)
        await peer.send(post(PUSH, b"", length=1))
        assert (await peer.read_to_end()).endswith(b'{"ret":0}')
        await peer.close()


async def test_part_of_a_request_before_the_end_does_not_take_the_others_answers(
    web: Web, comet: ScriptedComet
) -> None:
    peer = await connect(web)
    peer.writer.write(post(PUSH, b"1") + post(PUSH, b"2") + b"GET / HTTP/1.1\r\n")
    peer.writer.write_eof()
    for _ in range(2):
        assert (await read_response(peer)).body == b'{"ret":0}'
    assert await peer.read_to_end() == b""
    await peer.close()


async def test_client_that_ends_within_its_body_is_not_waited_for(web: Web, comet: ScriptedComet) -> None:
    peer = await connect(web)
    peer.writer.write(post(PUSH, b"1", length=9))
    peer.writer.write_eof()
    assert await peer.read_to_end() == b""
    await eventually(lambda: not web.admin_listener.in_progress)
    assert not comet.pushes
    await peer.close()
