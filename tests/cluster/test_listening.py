"""cluster/listening.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest

from cluster.addresses import split_address
from cluster.listening import bound_address, listen, serve, try_listening
from tests.support.peer import Peer

BOTH = ("127.0.0.1", "::1")


class Greeter(asyncio.Protocol):
    """Says who has come, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like one.
        stream = cast(asyncio.Transport, transport)
        stream.write(b"welcome")
        stream.close()


@contextlib.asynccontextmanager
async def greeting(address: str) -> AsyncIterator[str]:
    server, bound = await serve(Greeter, address, backlog=10)
    try:
        yield bound
    finally:
        server.close()


async def is_greeted(host: str, bound: str) -> bool:
    """Whether somebody listens at this address of the machine."""
    try:
        peer = await Peer.connect((host, split_address(bound)[1]))
    except ConnectionRefusedError:
        return False
    try:
        return await peer.read_to_end() == b"welcome"
    finally:
        await peer.close()


@pytest.mark.parametrize("address", ["[::]:0", ":0"])
async def test_all_interfaces_are_those_of_both_families_on_one_port(address: str) -> None:
    async with greeting(address) as bound:
        assert bound.startswith("[::]:")
        assert [await is_greeted(host, bound) for host in BOTH] == [True, True]


@pytest.mark.parametrize(
    ("address", "greeted"),
    [("0.0.0.0:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")],
)
async def test_address_of_one_family_is_of_that_alone(address: str, greeted: str) -> None:
    async with greeting(address) as bound:
        assert [await is_greeted(host, bound) for host in BOTH] == [host == greeted for host in BOTH]


async def test_name_of_both_families_is_where_clients_look_by_default() -> None:
    async with greeting("localhost:0") as bound:
        assert await is_greeted("127.0.0.1", bound)


async def test_accepted_sockets_inherit_what_was_set() -> None:
    listening = await listen("127.0.0.1:0", 10, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)])
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]", ""])
async def test_port_in_use_is_told_with_its_address(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"{host}:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=re.escape(f"cannot listen on {address}: ")) as caught:
            await listen(address, 10)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match="in use"):
            try_listening(address)


@pytest.mark.parametrize("address", ["203.0.113.1:80", "[2001:db8::1]:80", "no-such-host.invalid:80"])
async def test_address_that_is_not_ours_is_told(address: str) -> None:
    with pytest.raises(OSError, match=re.escape(f"cannot listen on {address}: ")):
        await listen(address, 10)


async def test_trying_leaves_the_address_free() -> None:
    with await listen("[::]:0", 10) as listening:
        address = bound_address(listening)
    try_listening(address)
    (await listen(address, 10)).close()
