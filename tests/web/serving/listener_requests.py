"""Requests on raw connections to a web node."""

from __future__ import annotations

from tests.support.peer import Peer
from tests.support.web import Web

PUSH = "/1/admin/push/private?key=k&expire=0"


def post(target: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = [f"POST {target} HTTP/1.1", "Host: test", f"Content-Length: {size}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def connect(web: Web, listener: str = "admin") -> Peer:
    return await Peer.connect(web.address(listener))
