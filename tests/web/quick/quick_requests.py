"""Pushes as they may go the short way, on raw connections to the admin API."""

from __future__ import annotations

from tests.support.eventually import eventually
from tests.support.http import read_response
from tests.support.peer import Peer
from tests.support.services import ScriptedComet
from tests.support.web import Web
from tests.web.serving import listener_requests
from web.quick.quickconnection import QuickConnection

TARGET = listener_requests.PUSH
PUSH = b"POST /1/admin/push/private?key=k&expire=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"


def post(body: bytes, *lines: str, target: str = TARGET) -> bytes:
    return listener_requests.post(target, body, *lines)


async def warm(web: Web) -> Peer:
    """A connection whose first request was answered: what follows may go the short way."""
    peer = await Peer.connect(web.address("admin"))
    await peer.send(post(b"1"))
    assert (await read_response(peer)).body == b'{"ret":0}'
    return peer


async def unanswered(web: Web, comet: ScriptedComet, push: bytes) -> Peer:
    """A connection with a push that goes the short way, which its comet node holds."""
    peer = await warm(web)
    comet.is_holding = True
    await peer.send(push)
    await eventually(lambda: comet.held_count)
    return peer


def quick_connections(web: Web) -> list[QuickConnection]:
    return [one for one in web.connections() if isinstance(one, QuickConnection)]
