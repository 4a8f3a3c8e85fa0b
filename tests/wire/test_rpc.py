"""RPC byte by byte: hostile and broken peers at the server's door, and at the client's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from cluster.errors import InDoubtError, UnavailableError
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.frames import (
    FAULT,
    GOODBYE,
    HEAD,
    LENGTH,
    PING,
    REPLY,
    REQUEST,
    REQUEST_HEAD,
    FrameReader,
    frame_head,
    request_head,
)
from cluster.rpc.handshake import ClientHandshake, ServerHandshake, Versions
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import CHANGE, ECHO, QUICK, SERVICE, Service, error_of
from tests.support.eventually import eventually

# Nothing waits this long when all is well.
PATIENCE_S = 20.0
OURS = Versions.up_to(1)
NONCE = b"n" * 32


class Peer:
    """A raw socket that can speak the protocol, or not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(10_000_000)
        self._ready: list[bytes] = []

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def send_body(self, body: bytes) -> None:
        self.send(LENGTH.pack(len(body)) + body)

    def call(self, number: int, method: int, payload: bytes, timeout_ms: int = 20_000) -> None:
        self.send(request_head(len(payload), number, method, timeout_ms) + payload)

    async def frame(self) -> bytes:
        """The next frame that is no ping."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._ready:
                data = await self._reader.read(65536)
                assert data, "closed by the other side"
                self._ready += self._frames.feed(data)
        return self._ready.pop(0)

    async def closed(self) -> bytes:
        """Wait until the other side closes; what it said before."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read()
        return b""

    async def shake(self, handshake: ClientHandshake) -> None:
        self.send_body(handshake.begin())
        while handshake.version is None:
            answer = handshake.receive(await self.frame())
            if answer is not None:
                self.send_body(answer)

    async def let_in(self, handshake: ServerHandshake) -> None:
        while handshake.version is None:
            self.send_body(handshake.receive(await self.frame()))

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def server(config: RpcConfig = QUICK) -> AsyncIterator[tuple[RpcServer, Service, Peer]]:
    """A server and a raw socket that is connected to it."""
    service = Service()
    rpc = RpcServer(SERVICE, service.routes(), config)
    await rpc.start()
    peer = Peer(*await asyncio.open_connection(*rpc.address.split(":")))
    try:
        yield rpc, service, peer
    finally:
        await peer.close()
        await rpc.stop(0.0)


@asynccontextmanager
async def known(config: RpcConfig = QUICK) -> AsyncIterator[tuple[RpcServer, Service, Peer]]:
    """The same after the handshake."""
    async with server(config) as (rpc, service, peer):
        await peer.shake(ClientHandshake(SERVICE, OURS, config.secret, NONCE))
        yield rpc, service, peer


# -- at the server's door


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


# -- at the client's door


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
