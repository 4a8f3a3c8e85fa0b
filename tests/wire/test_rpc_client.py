"""RPC byte by byte: hostile and broken peers at the client's door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from cluster.errors import InDoubtError, UnavailableError
from cluster.rpc.client import RpcClient
from cluster.rpc.frames import FAULT, LENGTH, REPLY, REQUEST, REQUEST_HEAD, frame_head, request_head
from cluster.rpc.handshake import ServerHandshake
from tests.cluster.rpc_nodes import CHANGE, QUICK, SERVICE, error_of
from tests.support.eventually import eventually
from tests.wire.rpc_peer import NONCE, OURS, PATIENCE_S, Peer


@asynccontextmanager
async def client(*, is_known: bool = True) -> AsyncIterator[tuple[RpcClient, Peer]]:
    """A client and the raw socket that it takes for a server."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    listener = await asyncio.start_server(lambda r, w: peers.put_nowait(Peer(r, w)), "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    rpc = RpcClient(f"{host}:{port}", SERVICE, replace(QUICK, backoff_first_s=60, backoff_max_s=60))
    rpc.start()
    peer = await asyncio.wait_for(peers.get(), PATIENCE_S)
    if is_known:
        await peer.let_in(ServerHandshake(SERVICE, OURS, "", NONCE))
        await eventually(lambda: rpc.is_up)
    try:
        yield rpc, peer
    finally:
        await rpc.stop()
        await peer.close()
        listener.close()


async def test_request_on_the_wire_holds_the_time_that_is_left() -> None:
    async with client() as (rpc, peer):
        call = rpc.call(CHANGE, ("a",), 1.5)
        frame = await peer.frame()

        kind, number, method, timeout_ms = REQUEST_HEAD.unpack_from(frame)
        assert (kind, method) == (REQUEST, CHANGE.number)
        assert 1400 < timeout_ms <= 1501
        payload = msgspec.msgpack.encode("done")
        peer.send(frame_head(len(payload), REPLY, number) + payload)
        assert await call == "done"


async def test_calls_of_one_turn_leave_in_one_piece() -> None:
    async with client() as (rpc, peer):
        calls = [rpc.call(CHANGE, (str(n),), 20) for n in range(50)]

        # One read gets them all: they were written together.
        first = await peer.frame()

        assert len(peer._ready) == 49
        assert REQUEST_HEAD.unpack_from(first)[1] == 1
        await rpc.stop()
        assert {type(await error_of(call)) for call in calls} == {InDoubtError}


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        LENGTH.pack(5000) + b"x" * 5000,
        LENGTH.pack(2) + b"hi",
        LENGTH.pack(1) + b"\xc1",
    ],
)
async def test_client_leaves_a_server_that_is_none(data: bytes) -> None:
    async with client(is_known=False) as (rpc, peer):
        call = rpc.call(CHANGE, ("a",), 20)
        peer.send(data)

        assert type(await error_of(call)) is UnavailableError


@pytest.mark.parametrize(
    "data",
    [
        LENGTH.pack(2**31),
        LENGTH.pack(2) + b"hi",
        frame_head(0, REPLY, 12345),
        frame_head(0, 99, 1),
        frame_head(1, REPLY, 1) + b"\xc1",
        frame_head(1, FAULT, 1) + b"\xc1",
        frame_head(0, REPLY, 1),
        request_head(0, 7, 1, 0),
    ],
    ids=["large", "short", "never made", "kind", "reply", "fault", "empty", "request"],
)
async def test_garbage_from_the_server_ends_the_connection_and_leaves_doubt(data: bytes) -> None:
    async with client() as (rpc, peer):
        call = rpc.call(CHANGE, ("a",), 20)
        await peer.frame()
        peer.send(data)

        assert type(await error_of(call)) is InDoubtError
        await eventually(lambda: not rpc.is_up)


async def test_fault_of_the_wrong_shape_leaves_doubt_and_the_connection_lives() -> None:
    async with client() as (rpc, peer):
        call = rpc.call(CHANGE, ("a",), 20)
        await peer.frame()
        payload = msgspec.msgpack.encode({"not": "a fault"})
        peer.send(frame_head(len(payload), FAULT, 1) + payload)

        assert type(await error_of(call)) is InDoubtError
        assert rpc.is_up


async def test_error_unknown_to_this_version_is_taken_for_its_base() -> None:
    async with client() as (rpc, peer):
        call = rpc.call(CHANGE, ("a",), 20)
        await peer.frame()
        payload = msgspec.msgpack.encode([["brand_new", "unavailable", "internal"], "why", True, "more"])
        peer.send(frame_head(len(payload), FAULT, 1) + payload)

        error = await error_of(call)
        assert type(error) is UnavailableError
        assert error.is_retryable
