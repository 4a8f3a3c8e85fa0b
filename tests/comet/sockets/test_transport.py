"""The transport of a subscriber's socket, on real ones."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from itertools import count
from socket import SocketType

import pytest

from comet.sockets.transport import HIGH_WATER, LOW_WATER, MAX_PIECES, READ_BYTES, SocketTransport
from tests.comet.sockets.socketpairs import Pair, User, running_pair, running_pairs, running_poller
from tests.support.eventually import eventually


async def fill(pair: Pair, size: int) -> bytes:
    """Write until so many bytes wait here, because the peer does not read; all that was written."""
    written = b""
    while pair.transport.unread_bytes < size:
        piece = bytes([len(written) % 251]) * 1000
        assert pair.transport.write(piece)
        written += piece
        await asyncio.sleep(0)
    return written


def reset(peer: socket.socket) -> None:
    """End with a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def test_what_the_peer_sends_is_told_until_it_ends() -> None:
    with running_pair() as pair:
        pair.peer.send(b"one")
        await eventually(lambda: pair.user.received == b"one")
        pair.peer.send(b"x" * (READ_BYTES * 2 + 1))
        await eventually(lambda: len(pair.user.received) == 3 + READ_BYTES * 2 + 1)
        pair.peer.shutdown(socket.SHUT_WR)
        await eventually(lambda: pair.user.told == ["made", "eof", "lost"])
        assert pair.transport.is_closing
        assert not pair.transport.write(b"late")


async def test_first_write_of_a_moment_is_out_at_once_and_the_others_follow_together() -> None:
    with running_pair(now=lambda: 5.0) as pair:
        assert pair.transport.write(b"first")
        assert pair.read() == b"first"
        assert pair.transport.write(b"second")
        assert pair.transport.write(b"third")
        assert pair.read() == b""
        assert pair.transport.unread_bytes == len(b"secondthird")
        await eventually(lambda: pair.transport.unread_bytes == 0)
        assert pair.read() == b"secondthird"


async def test_writes_of_nothing_leave_nothing_behind() -> None:
    with running_pair(now=lambda: 5.0) as pair:
        for data in (b"", b"", b"first", b"", b"second", b""):
            assert pair.transport.write(data)
        assert await pair.read_until(len(b"firstsecond")) == b"firstsecond"
        pair.transport.close()
        await eventually(lambda: pair.user.told == ["made", "lost"])


async def test_later_write_is_out_at_once_again() -> None:
    moments = count(1)
    with running_pair(now=lambda: next(moments)) as pair:
        for data in (b"first", b"second", b"third"):
            assert pair.transport.write(data)
            assert pair.read() == data


async def test_more_pieces_than_one_call_takes_arrive_in_order() -> None:
    with running_pair() as pair:
        pieces = [b"%d;" % number for number in range(MAX_PIECES * 3 + 1)]
        for piece in pieces:
            assert pair.transport.write(piece)
        expected = b"".join(pieces)
        assert await pair.read_until(len(expected)) == expected


async def test_bytes_arrive_whole_and_in_order_however_they_are_cut() -> None:
    chance = random.Random(7)
    with running_pair() as pair:
        written, read = b"", b""
        for number in range(400):
            piece = bytes([number % 251]) * chance.choice((1, 10, 1000, 30_000))
            assert pair.transport.write(piece)
            written += piece
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                read += pair.read()
        read += await pair.read_until(len(written) - len(read))
        assert read == written
        await eventually(lambda: pair.transport.unread_bytes == 0)


async def test_user_is_told_to_pause_once_and_to_go_on_when_the_peer_has_read() -> None:
    with running_pair() as pair:
        # By pieces of 1,000 bytes.
        written = await fill(pair, HIGH_WATER - 1000)
        assert pair.user.told == ["made"]
        written += await fill(pair, HIGH_WATER * 2)
        assert pair.user.told == ["made", "pause"]
        read = b""
        while pair.transport.unread_bytes > LOW_WATER:
            assert "resume" not in pair.user.told
            read += pair.read()
            await asyncio.sleep(0)
        assert pair.user.told == ["made", "pause", "resume"]
        assert read + await pair.read_until(len(written) - len(read)) == written


async def test_single_write_larger_than_the_high_water_mark_pauses() -> None:
    with running_pair() as pair:
        data = b"x" * (HIGH_WATER * 4)
        assert pair.transport.write(data)
        assert pair.user.told == ["made", "pause"]
        assert await pair.read_until(len(data)) == data
        await eventually(lambda: pair.user.told == ["made", "pause", "resume"])


async def test_close_ends_after_what_was_written_and_reads_no_more() -> None:
    with running_pair() as pair:
        written = await fill(pair, HIGH_WATER // 2)
        pair.transport.close()
        assert pair.transport.is_closing
        assert not pair.transport.write(b"late")
        pair.peer.send(b"unheard")
        for _ in range(10):
            await asyncio.sleep(0)
        assert pair.user.told == ["made"]
        assert await pair.read_until(len(written)) == written
        await eventually(lambda: pair.user.told == ["made", "lost"])
        assert pair.user.received == b""


async def test_close_with_nothing_to_write_ends_and_tells_it_in_the_next_turn() -> None:
    with running_pair() as pair:
        pair.transport.close()
        pair.transport.close()
        pair.transport.abort()
        assert pair.user.told == ["made"]
        await eventually(lambda: pair.user.told == ["made", "lost"])
        await eventually(lambda: pair.peer.recv(1) == b"")


async def test_abort_drops_what_is_unread() -> None:
    with running_pair() as pair:
        await fill(pair, HIGH_WATER * 2)
        pair.transport.abort()
        assert pair.transport.unread_bytes == 0
        await eventually(lambda: pair.user.told == ["made", "pause", "lost"])
        assert pair.user.unread > 0


async def test_end_tells_how_many_writes_had_not_gone_out() -> None:
    with running_pair() as pair:
        await fill(pair, HIGH_WATER)
        waiting = pair.transport.unread_bytes
        for _ in range(3):
            pair.transport.write(b"x")
        assert pair.transport.unread_bytes == waiting + 3
        pair.transport.abort()
        await eventually(lambda: pair.user.told[-1] == "lost")
        # What fill() wrote waits as one piece or more, the last three for certain.
        assert pair.user.unread > 3


async def test_write_eof_comes_after_what_was_written_and_leaves_reading() -> None:
    with running_pair() as pair:
        written = await fill(pair, HIGH_WATER // 2)
        pair.transport.write_eof()
        pair.transport.write_eof()
        assert not pair.transport.write(b"late")
        assert await pair.read_until(len(written)) == written
        await eventually(lambda: pair.transport.unread_bytes == 0)
        assert pair.peer.recv(1) == b""
        pair.peer.send(b"still heard")
        await eventually(lambda: pair.user.received == b"still heard")
        pair.peer.close()
        await eventually(lambda: pair.user.told == ["made", "eof", "lost"])


async def test_close_after_write_eof_ends() -> None:
    with running_pair() as pair:
        pair.transport.write_eof()
        assert pair.peer.recv(1) == b""
        pair.transport.close()
        await eventually(lambda: pair.user.told == ["made", "lost"])


@pytest.mark.parametrize("last_words", ["close", "write_eof", "nothing"])
async def test_reset_of_a_peer_that_does_not_read_ends_everything(last_words: str) -> None:
    with running_pair() as pair:
        await fill(pair, HIGH_WATER * 2)
        if last_words != "nothing":
            getattr(pair.transport, last_words)()
        reset(pair.peer)
        await eventually(lambda: pair.user.told == ["made", "pause", "lost"])


async def test_write_to_a_peer_that_is_found_gone_is_refused() -> None:
    with running_pair() as pair:
        reset(pair.peer)
        assert not pair.transport.write(b"to nobody")
        assert pair.user.told == ["made"]
        await eventually(lambda: pair.user.told == ["made", "lost"])


async def test_write_eof_to_a_peer_that_is_gone_ends() -> None:
    with running_pair() as pair:
        reset(pair.peer)
        pair.transport.write_eof()
        await eventually(lambda: pair.user.told == ["made", "lost"])


async def test_nothing_is_read_while_reading_is_paused() -> None:
    with running_pair() as pair:
        pair.transport.pause_reading()
        pair.peer.send(b"later")
        for _ in range(10):
            await asyncio.sleep(0)
        assert pair.user.received == b""
        pair.transport.resume_reading()
        await eventually(lambda: pair.user.received == b"later")


async def test_reset_is_noticed_while_reading_is_paused() -> None:
    with running_pair() as pair:
        pair.transport.pause_reading()
        reset(pair.peer)
        await eventually(lambda: pair.user.told == ["made", "lost"])
        pair.transport.resume_reading()


async def test_reading_is_not_resumed_once_it_closes() -> None:
    with running_pair() as pair:
        await fill(pair, HIGH_WATER // 2)
        pair.transport.close()
        pair.transport.resume_reading()
        pair.peer.send(b"unheard")
        for _ in range(10):
            await asyncio.sleep(0)
        assert pair.user.received == b""


async def test_somebody_else_can_take_over() -> None:
    with running_pair() as pair:
        successor = User()
        pair.transport.hand_to(successor)
        pair.peer.send(b"for you")
        await eventually(lambda: successor.received == b"for you")
        pair.peer.close()
        await eventually(lambda: successor.told == ["eof", "lost"])
        assert pair.user.told == ["made"]


async def test_peer_is_named_while_it_is_there() -> None:
    with running_pair() as pair:
        host, port = pair.peer.getsockname()
        assert pair.transport.peer == f"{host}:{port}"
        pair.transport.abort()
        await eventually(lambda: "lost" in pair.user.told)
        assert pair.transport.peer == ""


async def test_peer_of_an_ipv6_address_is_named_with_brackets() -> None:
    with (
        running_poller() as poller,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listening,
        socket.create_connection(listening.getsockname()[:2]) as peer,
    ):
        accepted = listening.accept()[0]
        sock = SocketType(accepted.family, accepted.type, accepted.proto, accepted.detach())
        transport = SocketTransport(poller, sock, User())
        transport.begin()
        assert transport.peer == f"[::1]:{peer.getsockname()[1]}"


async def test_user_that_fails_loses_its_socket_and_the_next_one_is_served() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told["exception"]))
    with running_pairs(2) as (bad, good):

        def fail(data: bytes) -> None:
            raise ValueError(data)

        bad.user.on_data = fail
        for pair in (bad, good):
            pair.peer.send(b"hello")
        await eventually(lambda: good.user.received == b"hello")
        await eventually(lambda: bad.user.told == ["made", "lost"])
        assert good.user.told == ["made"]
        assert [repr(fault) for fault in faults] == ["ValueError(b'hello')"]
