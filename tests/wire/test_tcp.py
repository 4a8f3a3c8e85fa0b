"""Raw TCP subscribers at a real node: each row of the protocol's table, deadlines, farewells, floods.

Bad input by the dozen is in tests/e2e/test_hostile_tcp.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.model import Key, NodeInfo, NodeKind, NodeName
from cluster.tokens import mint
from comet.codec.protocol import CloseReason
from tests.support.comet import Comet, running_comet
from tests.support.eventually import eventually
from tests.support.peer import Peer
from tests.support.subscriber import Document, End, command, subscribe_tcp


@pytest.fixture
async def comet(tmp_path: Path) -> AsyncIterator[Comet]:
    async with running_comet(tmp_path, tcp_handshake_s=0.4) as started:
        yield started


@contextlib.asynccontextmanager
async def connected(comet: Comet) -> AsyncIterator[Peer]:
    peer = await Peer.connect(comet.tcp)
    try:
        yield peer
    finally:
        await peer.close()


async def answer_of(comet: Comet, data: bytes) -> bytes:
    """All that the node says to these bytes before it ends the connection."""
    async with connected(comet) as peer:
        await peer.send(data)
        return await peer.read_to_end()


def other_node(name: str) -> NodeInfo:
    return NodeInfo(NodeKind.COMET, NodeName(name), "other", {"ws": ("a:1",), "tcp": ("a:2",)}, weight=9)


async def test_subscriber_is_greeted_and_each_heartbeat_is_answered(comet: Comet) -> None:
    async with connected(comet) as peer:
        await peer.send(command("sub", "k", "30"))
        assert await peer.read_exactly(4) == b"+h\r\n"
        await peer.send(b"h")
        assert await peer.read_exactly(4) == b"+h\r\n"
        await peer.send(b"hh")
        assert await peer.read_exactly(8) == b"+h\r\n" * 2


async def test_heartbeats_in_the_segment_of_the_subscription_are_answered(comet: Comet) -> None:
    async with connected(comet) as peer:
        await peer.send(command("sub", "k", "30") + b"hh")
        assert await peer.read_exactly(12) == b"+h\r\n" * 3


async def test_command_may_come_byte_by_byte(comet: Comet) -> None:
    async with connected(comet) as peer:
        for byte in command("sub", "k", "30"):
            await peer.send(bytes([byte]))
        assert await peer.read_exactly(4) == b"+h\r\n"


@pytest.mark.parametrize(
    ("version", "frame"),
    [
        ("", b'$%d\r\n{"msg":"{\\"n\\":1}","mid":%d,"gid":0}\r\n'),
        ("1.0", b'$%d\r\n{"msg":{"n":1},"mid":%d,"gid":0}\r\n'),
        ("2", b'$%d\r\n{"msg":{"n":1},"mid":%d,"gid":0}\r\n'),
    ],
)
async def test_message_is_one_bulk_string_in_the_shape_of_the_version(
    comet: Comet, version: str, frame: bytes
) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", version=version)
    await subscriber.open()
    mid = await comet.push("k", b'{"n":1}')
    document = frame.partition(b"\r\n")[2][:-2] % mid
    expected = frame % (len(document), mid)
    assert await subscriber.peer.read_exactly(len(expected)) == expected
    await subscriber.close()


@pytest.mark.parametrize("wrong", [b"x", b"h ", b"\r\n", b"a80\r\n", command("sub", "k", "30")])
async def test_anything_but_a_heartbeat_closes_without_a_reply(comet: Comet, wrong: bytes) -> None:
    answered = b"+h\r\n" * wrong.count(b"h", 0, 1)
    assert await answer_of(comet, command("sub", "k", "30") + wrong) == b"+h\r\n" + answered
    assert comet.counted("closes_total", "protocol_error") == 1


@pytest.mark.parametrize(
    "wrong", [command("pub", "k", "30"), command("sub", "k", "29"), b"*0\r\n", b"\x16\x03"]
)
async def test_wrong_command_is_answered_with_p_and_closed(comet: Comet, wrong: bytes) -> None:
    assert await answer_of(comet, wrong) == b"-p\r\n"
    assert comet.counted("refusals_total", "parameter") == 1


@pytest.mark.parametrize("begun", [b"", command("sub", "k", "30")[:-1]])
async def test_handshake_that_takes_too_long_is_closed_without_a_reply(comet: Comet, begun: bytes) -> None:
    assert await answer_of(comet, begun) == b""
    assert comet.counted("refusals_total", "handshake_timeout") == 1


async def test_dripping_does_not_extend_the_handshake(comet: Comet) -> None:
    began = time.monotonic()
    async with connected(comet) as peer:
        # uvloop's word for a transport of ours that has just been lost is RuntimeError.
        with contextlib.suppress(ConnectionError, RuntimeError):
            for byte in command("sub", "k" * 200, "30"):
                await peer.send(bytes([byte]))
                # The rhythm is the input here.
                await asyncio.sleep(0.02)
        assert await peer.read_to_end() == b""
    assert time.monotonic() - began < 4


async def test_half_close_of_the_subscriber_ends_the_connection(comet: Comet) -> None:
    async with connected(comet) as peer:
        await peer.send(command("sub", "k", "30"))
        peer.writer.write_eof()
        assert await peer.read_to_end() == b"+h\r\n"
    await eventually(lambda: comet.open_sockets == 0)
    assert comet.counted("closes_total", "peer_closed") == 1


async def test_reset_of_the_subscriber_leaves_nothing(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k")
    await subscriber.open()
    await subscriber.peer.reset()
    await eventually(lambda: comet.open_sockets == 0)
    assert comet.counted("connections") == comet.counted("channels") == 0


# -- refusals


async def test_key_of_another_node_is_answered_with_n(comet: Comet) -> None:
    await comet.registry.register(other_node("other"))
    answers = [await answer_of(comet, command("sub", f"key-{i}", "30") + b"x") for i in range(8)]
    assert b"-n\r\n" in answers
    assert set(answers) <= {b"-n\r\n", b"+h\r\n"}


async def test_full_node_answers_with_c(tmp_path: Path) -> None:
    async with running_comet(tmp_path, capacity=1) as comet:
        subscriber = await subscribe_tcp(comet.tcp, "a")
        await subscriber.open()
        assert await answer_of(comet, command("sub", "b", "30")) == b"-c\r\n"
        assert await answer_of(comet, command("sub", "b", "30", "", "2")) == b"-c\r\n"
        await subscriber.close()


async def test_bad_token_is_answered_with_a(tmp_path: Path) -> None:
    async with running_comet(tmp_path, secrets=("s3cret",)) as comet:
        assert await answer_of(comet, command("sub", "k", "30")) == b"-a\r\n"
        bad = mint("other", Key("k"), int(time.time()) + 60)
        assert await answer_of(comet, command("sub", "k", "30", bad)) == b"-a\r\n"
        assert await answer_of(comet, command("sub", "k", "30", bad, "2")) == (
            b"-a\r\n-4401 token refused or expired\r\n"
        )
        good = mint("s3cret", Key("k"), int(time.time()) + 60)
        assert await answer_of(comet, command("sub", "k", "30", good) + b"x") == b"+h\r\n"


async def test_address_of_many_bad_tokens_is_closed_without_a_word_even_with_a_good_one(
    tmp_path: Path,
) -> None:
    async with running_comet(tmp_path, secrets=("s3cret",), token_failures_per_minute=2) as comet:
        for _ in range(2):
            assert await answer_of(comet, command("sub", "k", "30", "guess")) == b"-a\r\n"
        good = mint("s3cret", Key("k"), int(time.time()) + 600)
        for token in ("guess", good):
            for version in ("", "1.0", "2"):
                assert await answer_of(comet, command("sub", "k", "30", token, version)) == b""
        assert comet.counted("refusals_total", "too_many_tokens") == 6


async def test_connection_ends_when_its_token_expires(tmp_path: Path) -> None:
    async with running_comet(tmp_path, secrets=("s3cret",)) as comet:
        token = mint("s3cret", Key("k"), int(time.time()) + 2)
        subscriber = await subscribe_tcp(comet.tcp, "k", version="2", token=token)
        await subscriber.open()
        assert await subscriber.end() == End(4401, "token refused or expired")
        await subscriber.close()


async def test_one_connection_too_many_for_a_key_is_told_so_in_version_2_only(tmp_path: Path) -> None:
    async with running_comet(tmp_path, max_connections_per_key=1) as comet:
        subscriber = await subscribe_tcp(comet.tcp, "k")
        await subscriber.open()
        assert await answer_of(comet, command("sub", "k", "30")) == b""
        assert await answer_of(comet, command("sub", "k", "30", "", "1.9")) == b""
        too_many = b"-4005 too many connections for this key\r\n"
        assert await answer_of(comet, command("sub", "k", "30", "", "2")) == too_many
        await subscriber.close()


async def test_draining_node_sends_who_comes_late_elsewhere(comet: Comet) -> None:
    async with connected(comet) as old, connected(comet) as new:
        await eventually(lambda: comet.open_sockets == 2)
        drain = asyncio.create_task(comet.node.drain(3.0))
        await eventually(lambda: comet.is_draining)
        await old.send(command("sub", "k", "30"))
        assert await old.read_to_end() == b"-c\r\n"
        await new.send(command("sub", "k", "30", "", "2"))
        assert await new.read_to_end() == b"-c\r\n-1001 going away\r\n"
        # Their ends let the drain finish.
        await old.close()
        await new.close()
        await drain


async def test_refused_peer_that_keeps_its_side_open_is_cut_after_a_while(comet: Comet) -> None:
    async with connected(comet) as peer:
        await peer.send(b"*0\r\n" + b"x" * 100_000)
        assert await peer.read_to_end() == b"-p\r\n"
        assert comet.open_sockets == 1
        await eventually(lambda: comet.open_sockets == 0)


# -- endings


@pytest.mark.parametrize(
    ("version", "words"), [("", b""), ("1.0", b""), ("2", b"-4004 the key was deleted\r\n")]
)
async def test_end_of_a_connection_is_explained_to_version_2_only(
    comet: Comet, version: str, words: bytes
) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", version=version)
    await subscriber.open()
    await comet.node.delete_key(Key("k"), (0, 0))
    assert await subscriber.peer.read_to_end() == words
    assert comet.counted("connections") == 0
    await subscriber.close()


async def test_what_a_peer_sends_after_our_goodbye_is_discarded_until_it_is_cut(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", version="2")
    await subscriber.open()
    await comet.node.delete_key(Key("k"), (0, 0))
    await subscriber.peer.send(b"hhhh")
    assert await subscriber.peer.read_to_end() == b"-4004 the key was deleted\r\n"
    await eventually(lambda: comet.open_sockets == 0)
    await subscriber.close()


async def test_reader_that_has_stopped_is_cut_even_when_little_is_unread(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", receive_buffer_bytes=2048)
    await subscriber.open()
    (connection,) = comet.connections("k")
    while not connection.unread_bytes:
        await comet.push("k", b'"%b"' % (b"x" * 5000))
    assert connection.unread_bytes < 64 * 1024
    await comet.node.delete_key(Key("k"), (0, 0))
    assert connection.closed_for is CloseReason.DELETED
    await eventually(lambda: comet.open_sockets == 0)
    await subscriber.close()


async def test_reader_that_catches_up_lives_on(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", receive_buffer_bytes=2048)
    await subscriber.open()
    (connection,) = comet.connections("k")
    pushed = []
    while connection.unread_bytes < 100_000:
        pushed.append(await comet.push("k", b'"%b"' % (b"x" * 5000)))
    assert [document.mid for document in await subscriber.documents(len(pushed))] == pushed
    assert connection.unread_bytes == 0
    await subscriber.beat()
    await subscriber.close()


async def test_acknowledgement_may_be_split_and_pipelined(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", version="2", device="d")
    await subscriber.open()
    mid = await comet.push("k", b"1", expire_s=60)
    assert await subscriber.receive() == Document(b'{"msg":1,"mid":%d,"gid":0}' % mid)
    for byte in b"ha%d\r\nh" % mid:
        await subscriber.peer.send(bytes([byte]))
    assert await subscriber.peer.read_exactly(8) == b"+h\r\n" * 2
    await subscriber.close()
    resumed = await subscribe_tcp(comet.tcp, "k", version="2", mid="ack", device="d")
    await resumed.open()
    second = await comet.push("k", b"2", expire_s=60)
    assert await resumed.receive() == Document(b'{"msg":2,"mid":%d,"gid":0}' % second)
    await resumed.close()


async def test_acknowledging_what_was_not_sent_ends_the_connection(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k", version="2")
    await subscriber.open()
    await subscriber.acknowledge(80)
    assert await subscriber.end() == End()
    await subscriber.close()


# -- floods


async def test_flood_of_heartbeats_is_answered(comet: Comet) -> None:
    subscriber = await subscribe_tcp(comet.tcp, "k")
    await subscriber.open()
    count = 50_000
    subscriber.peer.writer.write(b"h" * count)
    assert await subscriber.peer.read_exactly(4 * count) == b"+h\r\n" * count
    await subscriber.close()


async def test_flood_without_reading_ends_as_a_slow_consumer(tmp_path: Path) -> None:
    async with running_comet(tmp_path, unread_limit_bytes=100_000) as comet:
        subscriber = await subscribe_tcp(comet.tcp, "k", receive_buffer_bytes=2048)
        await subscriber.open()
        subscriber.peer.writer.write(b"h" * 400_000)
        await eventually(lambda: comet.counted("closes_total", "slow_consumer") == 1)
        await subscriber.close()


async def test_sender_over_the_limit_waits_and_others_do_not(tmp_path: Path) -> None:
    async with running_comet(tmp_path, max_frames_per_s=10) as comet:
        flooding = await subscribe_tcp(comet.tcp, "k", version="2")
        await flooding.open()
        other = await subscribe_tcp(comet.tcp, "other")
        await other.open()
        began = time.monotonic()
        await flooding.peer.send(b"a0\r\n" * 100)
        await eventually(lambda: not comet.is_reading("k"))
        await flooding.peer.send(b"h")
        await other.beat()
        assert time.monotonic() - began < 0.9
        assert await flooding.peer.read_exactly(4) == b"+h\r\n"
        assert time.monotonic() - began > 0.9
        await flooding.close()
        await other.close()


async def test_sender_that_drips_an_acknowledgement_waits_too(tmp_path: Path) -> None:
    async with running_comet(tmp_path, max_frames_per_s=4) as comet:
        dripping = await subscribe_tcp(comet.tcp, "k", version="2")
        await dripping.open()
        user = comet.transport("k")._user
        for size, part in enumerate((b"a", b"0", b"0", b"0"), start=1):
            await dripping.peer.send(part)
            await eventually(lambda size=size: len(user._held) == size)
        assert comet.is_reading("k")
        await dripping.peer.send(b"0")
        await eventually(lambda: not comet.is_reading("k"))
        await dripping.close()
