"""What the hostile-input tests share: a server with short deadlines, and a bystander that must not notice.

Where each kind of bad input is tried (against a running server unless said otherwise):

- raw TCP: test_hostile_tcp.py; byte by byte without a server: tests/comet/codec/test_resp.py
- WebSocket: test_hostile_websocket.py; every frame of RFC 6455: tests/wire/test_autobahn.py
- public HTTP, status port: test_hostile_http.py; raw sockets: tests/web/serving/test_listener.py
- admin HTTP, both versions: test_hostile_admin.py
- tokens, and the limit on bad ones: test_hostile_http.py, test_vectors_push.py
- configuration and command lines: test_hostile_command.py, tests/cluster/test_config.py, tests/encke
- frames between nodes: tests/cluster/rpc
- readers that stop: test_slow_consumer.py; too many connections: test_descriptors.py
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.peer import Peer
from tests.support.system import Server

# Configuration: deadlines short enough to wait for; everything else as by default.
SHORT_DEADLINES = """
[comet]
tcp_handshake_s = 1.0
ws_handshake_s = 1.0
ws_origins = ["https://good.example"]

[web]
header_timeout_s = 1.0
body_timeout_s = 1.0
max_payload_bytes = 100_000
admin_origins = ["https://good.example"]

[message]
durability = "os"
"""
# Above the deadlines, with room for a busy machine.
ENDS_WITHIN_S = 20.0
# What one kind of bad input may leave in the process.
GROWTH_LIMIT_BYTES = 48 * 1024 * 1024


@contextlib.asynccontextmanager
async def undisturbed(server: Server) -> AsyncIterator[None]:
    """A subscriber over each transport gets its messages before and after the block, in bounded memory."""
    async with server.tcp("bystander", version="2") as tcp, server.websocket("bystander") as websocket:
        before = server.resident_bytes
        for phase in ("before", "after"):
            assert await server.push("bystander", {"phase": phase}, 60) == 0
            assert (await tcp.next_document()).value["msg"] == {"phase": phase}
            await websocket.next_document()
            if phase == "before":
                yield
        await tcp.beat()
        await websocket.beat()
    assert server.resident_bytes - before < GROWTH_LIMIT_BYTES


async def answer_of(server: Server, kind: str, data: bytes) -> bytes:
    """Send bytes on a fresh connection; everything that comes until the server ends it."""
    peer = await Peer.connect(server.addresses[kind])
    try:
        # The server may have seen enough before all is sent.
        with contextlib.suppress(ConnectionError):
            await peer.send(data)
        return await peer.read_to_end(ENDS_WITHIN_S)
    finally:
        await peer.close()


async def drip_bytes(peer: Peer, data: bytes) -> None:
    """Send a byte now and then, until cancelled or all is sent."""
    for byte in data:
        await peer.send(bytes([byte]))
        # The rhythm is the input here, not a wait for something.
        await asyncio.sleep(0.05)
