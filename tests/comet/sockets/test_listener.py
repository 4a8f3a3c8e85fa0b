"""The listening sockets: what accepted sockets inherit, floods of sockets, drain and abort."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn, cast

import pytest

from comet.codec.protocol import CloseReason
from comet.codec.usual import SubscribeReader
from comet.codec.wires import tcp_wires
from comet.config import CometConfig
from comet.sockets.door import MAX_SPARE_SOCKETS, Door, Doorkeeper, DoorLimits, OpenSockets
from comet.sockets.listener import Listener, start_tcp
from comet.sockets.poller import Poller
from comet.sockets.timers import TimerWheel
from comet.sockets.transport import SocketTransport, TransportUser
from tests.comet.sockets.socketpairs import User, running_poller
from tests.support.comet import running_comet
from tests.support.eventually import eventually
from tests.support.peer import Address, Peer
from tests.support.subscriber import command, subscribe_tcp, subscribe_websocket

# For listeners through which nobody subscribes.
NOBODY = cast(Doorkeeper, None)


async def test_accepted_sockets_have_small_buffers_and_no_delay(tmp_path: Path) -> None:
    async with running_comet(tmp_path, send_buffer_bytes=16384) as comet:
        subscriber = await subscribe_tcp(comet.tcp, "k")
        await subscriber.open()
        accepted = comet.transport("k")._socket
        # The kernel counts its own overhead in.
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 16384
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 8192
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        await subscriber.close()


async def test_silent_sockets_beyond_the_spare_ones_are_cut_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_comet(tmp_path, capacity=8) as comet, AsyncExitStack() as stack:
        spare = min(MAX_SPARE_SOCKETS, 8 // 4 + 1)
        subscriber = await subscribe_tcp(comet.tcp, "k")
        await subscriber.open()
        peers = [await Peer.connect(comet.tcp if i % 2 else comet.ws) for i in range(8 + spare + 20)]
        for peer in peers:
            stack.push_async_callback(peer.close)
        ends = [asyncio.create_task(peer.read_to_end()) for peer in peers]
        await eventually(lambda: sum(end.done() for end in ends) == 21)
        await eventually(lambda: comet.open_sockets == 8 + spare)
        await subscriber.beat()
        for peer in peers:
            await peer.close()
        await asyncio.gather(*ends)
        await eventually(lambda: comet.open_sockets == 1)
        again = await subscribe_tcp(comet.tcp, "k")
        await again.open()
        await again.close()
        await subscriber.close()
    warnings = [r for r in caplog.records if r.name == "comet.sockets.door" and r.levelno == logging.WARNING]
    assert len(warnings) == 1


async def test_port_in_use_is_an_error_and_leaves_no_socket() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        running_poller() as poller,
        pytest.raises(OSError, match="in use"),
    ):
        await listen(f"127.0.0.1:{taken.getsockname()[1]}", poller)


@pytest.mark.parametrize("bind", ["[::1]:0", "localhost:0", "0.0.0.0:0", ":0"])
async def test_address_may_be_of_any_family(bind: str) -> None:
    with running_poller() as poller:
        listener = await listen(bind, poller)
        host, _, port = listener.address.rpartition(":")
        assert int(port) > 0
        assert host.startswith("[") == ("::" in host)
        listener.stop_accepting()
        await listener.wait_closed()


async def listen(bind: str, poller: Poller) -> Listener:
    """Listen without a node, where nobody comes."""
    wheel = TimerWheel(asyncio.get_running_loop())
    return await start_tcp(CometConfig(tcp_bind=bind), NOBODY, wheel, OpenSockets(8), poller)


async def test_without_free_descriptors_nobody_is_accepted_until_there_are_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    caplog.set_level(logging.INFO)
    async with running_comet(tmp_path) as comet:
        old = await subscribe_tcp(comet.tcp, "old")
        await old.open()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as new:
            new.setblocking(False)
            lowest_free = os.dup(new.fileno())
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            try:
                await loop.sock_connect(new, comet.tcp)
                await eventually(lambda: "accepting no sockets" in caplog.text)
                await old.beat()
                # It is tried again, and not told again.
                comet.listener("tcp")._go_on()
                await old.beat()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await loop.sock_sendall(new, command("sub", "new", "30"))
            async with asyncio.timeout(20):
                assert await loop.sock_recv(new, 100) == b"+h\r\n"
        await old.close()
    assert caplog.text.count("accepting no sockets") == 1
    assert caplog.text.count("accepting sockets again") == 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug")])
async def test_fault_while_accepting_costs_nobody_who_is_here_and_delays_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: int) -> NoReturn:
        raise error

    monkeypatch.setattr("comet.sockets.listener.REST_S", 0.01)
    async with running_comet(tmp_path) as comet:
        old = await subscribe_tcp(comet.tcp, "old")
        await old.open()
        with monkeypatch.context() as broken:
            broken.setattr("comet.sockets.listener.SocketType", fail)
            cut = await Peer.connect(comet.tcp)
            assert await cut.read_to_end() == b""
            await cut.close()
            await old.beat()
        served = await subscribe_tcp(comet.tcp, "k")
        await served.open()
        await old.beat()
        await served.close()
        await old.close()
    assert caplog.text.count("accepting no sockets") == 1
    assert ("Traceback" in caplog.text) == isinstance(error, RuntimeError)


async def test_socket_that_cannot_be_served_is_cut_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    served = User()
    users = iter([None, served])

    def make_user() -> TransportUser:
        user = next(users)
        if user is None:
            raise ValueError
        return user

    async with listening_for(make_user) as address:
        await check_is_cut(address)
        await check_is_served(address, served)
    assert caplog.text.count("new socket not served") == 1


async def test_socket_whose_user_fails_at_once_is_cut_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fails(User):
        def connection_made(self, transport: SocketTransport) -> None:
            raise ValueError

    fails, served = Fails(), User()
    users = iter([fails, served])
    async with listening_for(lambda: next(users)) as address:
        await check_is_cut(address)
        assert fails.told == ["lost"]
        await check_is_served(address, served)
    assert caplog.text.count("fault at a subscriber's socket") == 1


@asynccontextmanager
async def listening_for(make_user: Callable[[], TransportUser]) -> AsyncIterator[Address]:
    """A listener without a node, whose sockets go to these users; its address."""
    loop = asyncio.get_running_loop()
    wheel = TimerWheel(loop)
    with running_poller() as poller, socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        limits = DoorLimits(1.0, 1.0, 100)
        door = Door(NOBODY, wheel, OpenSockets(8), tcp_wires(), SubscribeReader(), limits, loop.call_later)
        address = listening.getsockname()
        listener = Listener(poller, listening, make_user, door, loop.call_later)
        try:
            yield address
        finally:
            listener.abort()


async def check_is_cut(address: Address) -> None:
    peer = await Peer.connect(address)
    assert await peer.read_to_end() == b""
    await peer.close()


async def check_is_served(address: Address, user: User) -> None:
    peer = await Peer.connect(address)
    await eventually(lambda: user.told == ["made"])
    await peer.close()
    await eventually(lambda: "eof" in user.told)
    assert user.transport is not None
    user.transport.abort()


async def test_drain_ends_when_the_last_socket_has_gone(tmp_path: Path) -> None:
    async with running_comet(tmp_path) as comet:
        tcp = await subscribe_tcp(comet.tcp, "a", version="2")
        ws = await subscribe_websocket(comet.ws, "b", version="2")
        await tcp.open()
        await ws.open()
        drain = asyncio.create_task(comet.node.drain(8.0))
        assert (await tcp.end()).code == (await ws.end()).code == 1001
        await tcp.close()
        await ws.close()
        async with asyncio.timeout(4):
            await drain
        with pytest.raises(ConnectionError):
            await Peer.connect(comet.tcp)


async def test_drain_does_not_wait_for_sockets_that_say_nothing(tmp_path: Path) -> None:
    async with running_comet(tmp_path, tcp_handshake_s=60.0, ws_handshake_s=60.0) as comet:
        silent = [await Peer.connect(address) for address in (comet.tcp, comet.ws)]
        await eventually(lambda: comet.open_sockets == 2)
        async with asyncio.timeout(4):
            await comet.node.drain(30.0)
        for peer in silent:
            assert await peer.read_to_end() == b""
            await peer.close()


async def test_abort_ends_every_socket_at_once(tmp_path: Path) -> None:
    async with running_comet(tmp_path, linger_s=60.0) as comet:
        tcp = await subscribe_tcp(comet.tcp, "a", version="2")
        await tcp.open()
        silent = await Peer.connect(comet.ws)
        refused = await Peer.connect(comet.tcp)
        await refused.send(b"*0\r\n")
        assert await refused.read_exactly(4) == b"-p\r\n"
        await eventually(lambda: comet.open_sockets == 3)
        comet.node._wheel.abort()
        await eventually(lambda: comet.open_sockets == 0)
        assert await silent.read_to_end() == await tcp.peer.read_to_end() == b""
        for peer in (tcp.peer, silent, refused):
            await peer.close()


@pytest.mark.parametrize("way", ["tcp", "ws"])
@pytest.mark.parametrize("end", ["by the peer", "by the node"])
async def test_connection_that_has_ended_is_freed(tmp_path: Path, way: str, end: str) -> None:
    async with running_comet(tmp_path) as comet:
        subscribe = subscribe_tcp if way == "tcp" else subscribe_websocket
        address = comet.tcp if way == "tcp" else comet.ws
        subscriber = await subscribe(address, "k", version="2", mid=0, device="d" * 60)
        await subscriber.open()
        (connection,) = comet.connections("k")
        # Nothing tells when a connection is freed: the garbage collector does not know it.
        # What it alone holds is its device's name.
        device = connection.device
        if end == "by the node":
            connection.close(CloseReason.DELETED)
            assert (await subscriber.end()).code == CloseReason.DELETED.code
        del connection
        await subscriber.close()
        await eventually(lambda: comet.open_sockets == 0)
        # This function's, and that of the call.
        await eventually(lambda: sys.getrefcount(device) == 2)
