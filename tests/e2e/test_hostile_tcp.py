"""Bad input on the raw TCP port of a running server. Input byte by byte: tests/comet/codec/test_resp.py."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.e2e.hostile import ENDS_WITHIN_S, SHORT_DEADLINES, answer_of, drip_bytes
from tests.support.peer import Peer
from tests.support.subscriber import End, command
from tests.support.system import Server

# Of the module's server.
CONFIG = SHORT_DEADLINES

MEGABYTE = 1024 * 1024


pytestmark = pytest.mark.usefixtures("bystander")


REFUSED = {
    "heartbeat 29": command("sub", "k", "29"),
    "heartbeat text": command("sub", "k", "soon"),
    "heartbeat of 30 digits": command("sub", "k", "1" * 30),
    "heartbeat negative": command("sub", "k", "-30"),
    "heartbeat with other digits": command("sub", "k", "３０"),
    "no key": command("sub", "", "30"),
    "other command": command("pub", "k", "30"),
    "command in capitals": command("SUB", "k", "30"),
    "two arguments": command("sub", "k"),
    "one argument": command("sub"),
    "no arguments": b"*0\r\n",
    "negative arguments": b"*-1\r\n",
    "eight arguments": command("sub", "k", "30", "", "2", "0", "d", "x"),
    "announced arguments": b"*999999999\r\n",
    "negative length": b"*1\r\n$-1\r\n\n",
    "huge length": b"*3\r\n$999999999999\r\n",
    "length over the command's limit": b"*3\r\n$3\r\nsub\r\n$5000\r\n" + b"k" * 5000,
    "length too short": b"*3\r\n$2\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n",
    "length too long": b"*3\r\n$4\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n",
    "length in hex": b"*3\r\n$0x3\r\nsub\r\n",
    "line feeds only": b"*3\n$3\nsub\n$1\nk\n$2\n30\n",
    "no dollar": b"*3\r\n3\r\nsub\r\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(64),
    "key with CR LF": command("sub", "a\r\nb", "30"),
    "key with NUL": command("sub", "a\0b", "30"),
    "key with DEL": command("sub", "a\x7fb", "30"),
    "key with a C1 control": command("sub", "a\x85b", "30"),
    "key not UTF-8": command("sub", b"\xff\xfe", "30"),
    "key with a surrogate": command("sub", b"\xed\xa0\x80", "30"),
    "key of 513 bytes": command("sub", "k" * 513, "30"),
    "key of 171 three-byte characters": command("sub", "你" * 171, "30"),
    "sixth argument of version 1": command("sub", "k", "30", "", "1.0", "0"),
    "resume mid negative": command("sub", "k", "30", "", "2", "-1"),
    "resume mid of 64 bits": command("sub", "k", "30", "", "2", str(2**63)),
    "resume mid text": command("sub", "k", "30", "", "2", "last"),
    "device of 65 bytes": command("sub", "k", "30", "", "2", "0", "d" * 65),
    "device with a control": command("sub", "k", "30", "", "2", "0", "a\nb"),
    "a megabyte without a line end": b"*" + b"1" * MEGABYTE,
    "a megabyte of zeros in a length": b"*3\r\n$" + b"0" * MEGABYTE,
    "a megabyte of something else": b"x" * MEGABYTE,
}


@pytest.mark.parametrize("name", REFUSED)
async def test_bad_command_is_refused_and_closed(server: Server, name: str) -> None:
    assert await answer_of(server, "tcp", REFUSED[name]) == b"-p\r\n"


AFTER_SUBSCRIBING = {
    "other byte": (b"x", b""),
    "other byte after heartbeats": (b"hhx", b"+h\r\n+h\r\n"),
    "line end": (b"\r\n", b""),
    "heartbeat in capitals": (b"H", b""),
    "another subscription": (command("sub", "k2", "30"), b""),
    "acknowledgement of version 1": (b"a80\r\n", b""),
}


@pytest.mark.parametrize("name", AFTER_SUBSCRIBING)
async def test_anything_but_heartbeats_ends_a_live_connection(server: Server, name: str) -> None:
    data, answered = AFTER_SUBSCRIBING[name]
    assert await answer_of(server, "tcp", command("sub", "k", "30") + data) == b"+h\r\n" + answered


async def test_megabyte_on_a_live_connection_ends_it(server: Server) -> None:
    answer = await answer_of(server, "tcp", command("sub", "k", "30") + b"z" * MEGABYTE)
    # It ends while we still send: the reset may take the heartbeat with it.
    assert answer in (b"+h\r\n", b"")


BAD_ACKNOWLEDGEMENTS = {
    "not a number": b"ax\r\n",
    "nothing": b"a\r\n",
    "negative": b"a-1\r\n",
    "20 digits": b"a" + b"9" * 20 + b"\r\n",
    "line feed only": b"a80\n",
    "above what was sent": b"a17952284581652160\r\n",
}


@pytest.mark.parametrize("name", BAD_ACKNOWLEDGEMENTS)
async def test_bad_acknowledgement_is_a_protocol_error(server: Server, name: str) -> None:
    subscription = command("sub", "acks", "30", "", "2")
    answer = await answer_of(server, "tcp", subscription + BAD_ACKNOWLEDGEMENTS[name])
    assert answer.startswith(b"+h\r\n")
    assert not answer.removeprefix(b"+h\r\n").startswith(b"+h")


async def test_heartbeats_in_the_packet_of_the_subscription_are_answered(server: Server) -> None:
    peer = await Peer.connect(server.addresses["tcp"])
    try:
        await peer.send(command("sub", "k", "30") + b"hh")
        assert await peer.read_exactly(12) == b"+h\r\n" * 3
    finally:
        await peer.close()


async def test_flood_of_heartbeats_is_answered_or_closed_in_bounded_memory(server: Server) -> None:
    peer = await Peer.connect(server.addresses["tcp"])
    try:
        # It never reads: the answers must not pile up without a bound.
        with contextlib.suppress(ConnectionError, TimeoutError):
            await peer.send(command("sub", "flood", "30"))
            async with asyncio.timeout(2):
                peer.writer.write(b"h" * 200_000)
                await peer.writer.drain()
        async with server.tcp("flood") as other:
            await other.beat()
    finally:
        await peer.close()


INCOMPLETE = {
    "nothing": b"",
    "half a line": b"*3",
    "half a command": b"*3\r\n$3\r\nsub\r\n$1\r\n",
}


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_incomplete_command_is_closed_without_a_reply(server: Server, name: str) -> None:
    assert await answer_of(server, "tcp", INCOMPLETE[name]) == b""


async def test_dripping_command_does_not_extend_its_deadline(server: Server) -> None:
    loop = asyncio.get_running_loop()
    peer = await Peer.connect(server.addresses["tcp"])
    began = loop.time()
    try:
        drip = asyncio.create_task(drip_bytes(peer, command("sub", "k" * 500, "30")))
        assert await peer.read_to_end(ENDS_WITHIN_S) == b""
        assert loop.time() - began < ENDS_WITHIN_S
        drip.cancel()
        await asyncio.gather(drip, return_exceptions=True)
    finally:
        await peer.close()


async def test_65th_connection_of_a_key_is_told_why_in_version_2(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(64):
            await stack.enter_async_context(server.subscriber("tcp" if number % 2 else "ws", "full"))
        assert await answer_of(server, "tcp", command("sub", "full", "30")) == b""
        answer = await answer_of(server, "tcp", command("sub", "full", "30", "", "2"))
        assert answer.startswith(b"-4005 ")


async def test_storm_of_connections_and_resets_leaves_the_server_serving(server: Server) -> None:
    async def storm() -> None:
        peer = await Peer.connect(server.addresses["tcp"])
        await peer.send(command("sub", "storm", "30"))
        await peer.reset()

    for _ in range(10):
        await asyncio.gather(*(storm() for _ in range(50)))
    async with server.tcp("storm", version="2") as subscriber:
        await subscriber.beat()
        assert await server.push("storm", 1) == 0
        assert (await subscriber.next_document()).value["msg"] == 1
    ended = await answer_of(server, "tcp", command("sub", "storm", "30") + b"x")
    assert ended == b"+h\r\n", End
