"""RPC byte by byte: hostile and broken peers at the server's door."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from cluster.errors import UnavailableError
from cluster.rpc.frames import FAULT, GOODBYE, HEAD, LENGTH, PING, REPLY, frame_head, request_head
from cluster.rpc.handshake import ClientHandshake
from tests.cluster.rpc_nodes import CHANGE, ECHO, QUICK, SERVICE
from tests.support.eventually import eventually
from tests.wire.rpc_peer import NONCE, OURS, PATIENCE_S, Peer, known, server


async def test_conversation_byte_by_byte() -> None:
    async with server() as (_, _, peer):
        handshake = ClientHandshake(SERVICE, OURS, "", NONCE)
        await peer.shake(handshake)
        payload = msgspec.msgpack.encode((b"hello",))
        data = request_head(len(payload), 1, ECHO.number, 20_000) + payload

        for index in range(len(data)):
            peer.send(data[index : index + 1])
            await asyncio.sleep(0)

        frame = await peer.frame()
        assert HEAD.unpack_from(frame) == (REPLY, 1)
        assert msgspec.msgpack.decode(frame[HEAD.size :]) == b"hello"


async def test_calls_that_arrive_together_are_answered_together() -> None:
    async with known() as (_, _, peer):
        payload = msgspec.msgpack.encode((b"x",))
        one = request_head(len(payload), 1, ECHO.number, 1000) + payload
        two = request_head(len(payload), 2, ECHO.number, 1000) + payload

        peer.send(PING + one + PING + two)

        assert [HEAD.unpack_from(await peer.frame())[1] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff" * 100,
        LENGTH.pack(4097) + b"x" * 4097,
        LENGTH.pack(5) + b"hello",
        LENGTH.pack(1) + b"\xc1",
        LENGTH.pack(3000) + b"\x91" * 3000,
        request_head(1, 1, ECHO.number, 1000) + b"\x90",
        b"\x80\x04\x95" + b"cos\nsystem\n(S'true'\ntR.",
    ],
    ids=["http", "tls", "ff", "large", "text", "reserved", "nested", "call first", "pickle"],
)
async def test_who_does_not_shake_hands_is_cut_without_a_word(data: bytes) -> None:
    async with server() as (rpc, service, peer):
        peer.send(data)

        assert await peer.closed() == b""
        assert not service.waiting
        await eventually(lambda: rpc.connections == 0)


async def test_silent_peer_is_cut_at_the_deadline_of_the_handshake() -> None:
    async with server(replace(QUICK, handshake_s=0.1)) as (_, _, peer):
        assert await peer.closed() == b""


async def test_drip_does_not_extend_the_handshake() -> None:
    async with server(replace(QUICK, handshake_s=0.2)) as (_, _, peer):
        closing = asyncio.create_task(peer.closed())
        hello = ClientHandshake(SERVICE, OURS, "", NONCE).begin()
        data = LENGTH.pack(len(hello)) + hello
        for index in range(len(data)):
            if closing.done():
                break
            peer.send(data[index : index + 1])
            await asyncio.wait([closing], timeout=0.02)

        await closing
        assert index < len(data) - 1


async def test_wrong_secret_is_told_and_closed() -> None:
    async with server(replace(QUICK, secret="right")) as (rpc, _, peer):
        with pytest.raises(UnavailableError, match="wrong shared secret"):
            await peer.shake(ClientHandshake(SERVICE, OURS, "wrong", NONCE))

        assert await peer.closed() == b""
        await eventually(lambda: rpc.connections == 0)


async def test_unknown_method_and_wrong_types_are_typed_errors() -> None:
    async with known() as (_, _, peer):
        for number, method, payload in (
            (1, 999, b"\x90"),
            (2, ECHO.number, msgspec.msgpack.encode((1,))),
            (3, ECHO.number, msgspec.msgpack.encode(())),
            (4, ECHO.number, msgspec.msgpack.encode((b"x", b"y"))),
            (5, ECHO.number, msgspec.msgpack.encode({"data": b"x"})),
        ):
            peer.call(number, method, payload)
            frame = await peer.frame()
            assert HEAD.unpack_from(frame) == (FAULT, number)
            assert msgspec.msgpack.decode(frame[HEAD.size :])[0] == ["local_protocol", "internal"]


@pytest.mark.parametrize(
    "data",
    [
        LENGTH.pack(32 * 1024 * 1024 + 1),
        LENGTH.pack(2**32 - 1) + b"x" * 100,
        LENGTH.pack(3) + b"abc",
        request_head(3, 1, ECHO.number, 1000) + b"\xc1\xc1\xc1",
        request_head(2, 1, ECHO.number, 1000) + b"\x91\xc4",
        request_head(4, 1, ECHO.number, 1000) + b"\x91\xc4\x00\x90",
        frame_head(0, REPLY, 1),
        frame_head(6, 77, 1) + b"abcdef",
    ],
    ids=["over limit", "4 GiB", "short", "garbage", "cut", "trailing", "reply", "kind"],
)
async def test_garbage_after_the_handshake_closes_the_connection(data: bytes) -> None:
    async with known() as (rpc, _, peer):
        peer.send(data)

        await peer.closed()
        await eventually(lambda: rpc.connections == 0)


async def test_nested_arguments_do_not_exhaust_the_stack() -> None:
    async with known() as (_, _, peer):
        payload = b"\x91" * 100_000
        peer.call(1, ECHO.number, payload)
        peer.call(2, ECHO.number, msgspec.msgpack.encode((b"x",)))

        closed_or_answered = await asyncio.wait_for(peer.frame(), PATIENCE_S)
        assert HEAD.unpack_from(closed_or_answered)[0] in (FAULT, REPLY)


async def test_one_number_for_two_calls_closes_the_connection() -> None:
    async with known() as (_, service, peer):
        for _ in range(2):
            peer.call(1, CHANGE.number, msgspec.msgpack.encode(("a",)))

        await peer.closed()
        # The first one goes on: it had begun.
        assert list(service.waiting) == ["a"]


async def test_half_a_frame_is_not_a_call() -> None:
    async with known() as (rpc, service, peer):
        payload = msgspec.msgpack.encode(("a" * 1000,))
        peer.send(request_head(len(payload), 1, CHANGE.number, 1000) + payload[:-1])
        await peer.close()

        await eventually(lambda: rpc.connections == 0)
        assert not service.waiting


async def test_call_without_time_left_is_answered_as_late() -> None:
    async with known() as (_, service, peer):
        peer.call(1, CHANGE.number, msgspec.msgpack.encode(("a",)), timeout_ms=0)

        frame = await peer.frame()

        assert HEAD.unpack_from(frame) == (FAULT, 1)
        assert msgspec.msgpack.decode(frame[HEAD.size :])[0][0] == "deadline_passed"
        assert not service.waiting


async def test_silent_peer_is_cut_and_one_that_pings_is_not() -> None:
    quick = replace(QUICK, ping_interval_s=0.05, silence_s=0.2)
    async with known(quick) as (rpc, _, peer):
        await eventually(lambda: rpc.connections == 0)
        assert PING in await peer.closed()

    async with known(quick) as (rpc, _, peer):
        closing = asyncio.create_task(peer.closed())
        for _ in range(20):
            peer.send(PING)
            await asyncio.wait([closing], timeout=0.02)
        assert not closing.done()
        assert rpc.connections == 1
        closing.cancel()


async def test_peer_that_is_let_in_while_the_server_stops_is_told_goodbye() -> None:
    async with known() as (rpc, service, peer):
        late = Peer(*await asyncio.open_connection(*rpc.address.split(":")))
        await eventually(lambda: rpc.connections == 2)
        peer.call(1, CHANGE.number, msgspec.msgpack.encode(("a",)))
        handler = await service.called("a")
        stopping = asyncio.create_task(rpc.stop())
        assert HEAD.unpack_from(await peer.frame()) == (GOODBYE, 0)

        await late.shake(ClientHandshake(SERVICE, OURS, "", NONCE))

        assert HEAD.unpack_from(await late.frame()) == (GOODBYE, 0)
        handler.set_result("done")
        assert HEAD.unpack_from(await peer.frame()) == (REPLY, 1)
        await stopping
        assert await late.closed() == b""
        await late.close()
