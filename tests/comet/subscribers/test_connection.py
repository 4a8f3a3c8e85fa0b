"""One connection on a transport in memory: what it writes, when it is slow, when it was silent too long."""

from __future__ import annotations

import pytest

from cluster.model import Mid
from cluster.stats import Stats
from comet.codec.protocol import HEARTBEAT_GRACE_S, ClientVersion, CloseReason
from comet.codec.wires import TcpWire, WebSocketWire
from comet.metrics import CometMetrics
from comet.subscribers.catchup import CatchUp
from comet.subscribers.connection import MAX_UNREAD_ANSWER_BYTES, Connection
from tests.comet.parts import NOW, Context, make_connection
from tests.support.transport import MemoryTransport

OLD, ONE, TWO = (TcpWire(version) for version in ClientVersion)
DEADLINE = NOW + 30 + HEARTBEAT_GRACE_S


def stuck(connection: Connection, transport: MemoryTransport, unread_bytes: int) -> None:
    """The peer has stopped to read."""
    transport.unread_bytes = unread_bytes
    connection.pause()


# -- messages


def test_message_is_written_at_once_and_raises_what_was_sent() -> None:
    connection, transport = make_connection()
    assert connection.offer(Mid(80), b"first")
    assert connection.offer(Mid(160), b"second")
    assert transport.take() == b"firstsecond"
    assert connection.sent_mid == 160


def test_message_that_was_sent_here_already_is_skipped_and_counts_as_taken() -> None:
    connection, transport = make_connection()
    connection.offer(Mid(160), b"second")
    transport.take()
    assert connection.offer(Mid(160), b"second")
    assert connection.offer(Mid(80), b"first")
    assert transport.take() == b""
    assert connection.sent_mid == 160


def test_slow_consumer_is_aborted_without_a_word_and_the_message_is_counted() -> None:
    context = Context(unread_limit_bytes=1000)
    connection, transport = make_connection(context)
    stuck(connection, transport, 1001)
    assert not connection.offer(Mid(80), b"too much")
    assert context.closes == [CloseReason.SLOW_CONSUMER]
    assert context.dropped == {CloseReason.SLOW_CONSUMER: 1}
    assert transport.ends == ["abort"]
    assert transport.take() == b""
    assert connection.sent_mid == 0


def test_reader_that_is_behind_but_under_the_limit_gets_more() -> None:
    connection, transport = make_connection(Context(unread_limit_bytes=1000))
    stuck(connection, transport, 1000)
    assert connection.offer(Mid(80), b"x" * 5000)
    assert len(transport.take()) == 5000


def test_one_message_larger_than_the_limit_fits() -> None:
    connection, transport = make_connection(Context(unread_limit_bytes=1000))
    assert connection.offer(Mid(80), b"x" * 5000)
    stuck(connection, transport, 5000)
    transport.unread_bytes = 0
    connection.resume()
    assert connection.offer(Mid(160), b"x" * 5000)


@pytest.mark.parametrize("reason", [None, CloseReason.HEARTBEAT_MISSED])
def test_what_had_not_gone_out_at_the_end_is_counted_by_why_it_ended(reason: CloseReason | None) -> None:
    context = Context()
    connection, _ = make_connection(context)
    if reason is not None:
        connection.close(reason)
    connection.lost(3)
    assert context.dropped == {reason or CloseReason.PEER_LOST: 3}


def test_message_to_a_transport_that_has_just_failed_is_not_taken() -> None:
    context = Context()
    connection, transport = make_connection(context)
    transport.has_failed = True
    assert not connection.offer(Mid(80), b"lost")
    assert connection.closed_for is CloseReason.PEER_LOST
    assert connection.sent_mid == 0
    # What the transport reports later ends nothing twice.
    connection.lost()
    assert context.closes == [CloseReason.PEER_LOST]
    assert context.forgotten == [connection]


# -- endings


@pytest.mark.parametrize(
    ("wire", "words"), [(OLD, b""), (ONE, b""), (TWO, b"-4001 another node owns the key now\r\n")]
)
def test_end_is_explained_to_version_2_and_the_connection_lingers(wire: TcpWire, words: bytes) -> None:
    context = Context()
    connection, transport = make_connection(context, wire=wire)
    connection.close(CloseReason.MOVED)
    assert transport.take() == words
    assert transport.ends == (["eof"] if words else ["close"])
    assert context.lingering == ([connection] if words else [])
    assert context.closes == [CloseReason.MOVED]


def test_websocket_says_goodbye_in_a_close_frame_and_waits_for_the_answer() -> None:
    context = Context()
    connection, transport = make_connection(context, wire=WebSocketWire(ClientVersion.ONE))
    connection.close(CloseReason.MOVED)
    assert transport.take() == b"\x88\x00"
    assert transport.ends == []
    assert context.lingering == [connection]


def test_wordless_close_with_unread_bytes_does_not_wait_for_ever() -> None:
    context = Context()
    connection, transport = make_connection(context, wire=ONE)
    transport.unread_bytes = 10
    connection.close(CloseReason.DRAINING)
    assert transport.ends == ["close"]
    assert context.lingering == [connection]


@pytest.mark.parametrize("reason", [CloseReason.DRAINING, CloseReason.SLOW_CONSUMER])
def test_reader_that_has_stopped_is_aborted_whatever_the_reason(reason: CloseReason) -> None:
    context = Context()
    connection, transport = make_connection(context)
    stuck(connection, transport, 100)
    connection.close(reason)
    assert transport.ends == ["abort"]
    assert context.lingering == []


def test_goodbye_to_a_transport_that_has_failed_aborts_it() -> None:
    connection, transport = make_connection()
    transport.has_failed = True
    connection.close(CloseReason.DRAINING)
    assert transport.ends == ["abort"]


def test_connection_ends_once_and_for_its_first_reason() -> None:
    context = Context()
    connection, transport = make_connection(context)
    connection.close(CloseReason.DELETED)
    said = transport.take()
    connection.close(CloseReason.DRAINING)
    connection.lost()
    assert said == b"-4004 the key was deleted\r\n"
    assert transport.take() == b""
    assert context.closes == [CloseReason.DELETED]
    assert connection.has_ended()


def test_abort_ends_the_transport_and_leaves_the_reason_to_what_it_reports() -> None:
    context = Context()
    connection, transport = make_connection(context)
    connection.abort()
    assert transport.ends == ["abort"]
    connection.lost()
    assert context.closes == [CloseReason.PEER_LOST]


# -- deadlines


def test_missed_heartbeat_ends_the_connection_after_its_time_and_the_grace() -> None:
    context = Context()
    connection, transport = make_connection(context)
    assert connection.first_deadline() == DEADLINE
    assert connection.next_deadline(DEADLINE - 0.01) == DEADLINE
    assert context.closes == []
    assert connection.next_deadline(DEADLINE) == DEADLINE + context.linger_s
    assert context.closes == [CloseReason.HEARTBEAT_MISSED]
    assert transport.take() == b"-4003 no heartbeat in time\r\n"


def test_heartbeat_is_answered_and_moves_the_deadline() -> None:
    connection, transport = make_connection()
    connection.heartbeat(NOW + 20)
    connection.heartbeat(NOW + 25, count=3)
    assert transport.take() == b"+h\r\n" * 4
    assert connection.next_deadline(DEADLINE) == DEADLINE + 25


def test_farewell_that_nobody_answers_is_cut_in_the_end() -> None:
    connection, transport = make_connection()
    connection.close(CloseReason.DRAINING)
    assert connection.next_deadline(NOW + 2) is None
    assert transport.ends == ["eof", "abort"]


def test_token_that_expires_ends_the_connection_however_alive_it_is() -> None:
    context = Context()
    connection, transport = make_connection(context)
    connection.expire_token_at(NOW + 3)
    assert connection.first_deadline() == NOW + 3
    connection.heartbeat(NOW + 2)
    transport.take()
    assert connection.next_deadline(NOW + 2.9) == NOW + 3
    assert connection.next_deadline(NOW + 3) is not None
    assert context.closes == [CloseReason.BAD_TOKEN]
    assert transport.take() == b"-4401 token refused or expired\r\n"


def test_token_that_lives_longer_does_not_replace_the_heartbeat() -> None:
    context = Context()
    connection, _ = make_connection(context)
    connection.expire_token_at(NOW + 1000)
    assert connection.first_deadline() == DEADLINE
    connection.next_deadline(DEADLINE)
    assert context.closes == [CloseReason.HEARTBEAT_MISSED]


# -- what its peer sends


def test_peer_that_asks_without_reading_the_answers_is_a_slow_consumer_and_no_message_is_lost() -> None:
    context = Context()
    connection, transport = make_connection(context)
    stuck(connection, transport, 100_000)
    connection.heartbeat(NOW, MAX_UNREAD_ANSWER_BYTES // len(connection.wire.heartbeat))
    assert context.closes == []
    connection.heartbeat(NOW)
    assert context.closes == [CloseReason.SLOW_CONSUMER]
    assert context.dropped == {}


def test_peer_that_sends_heartbeats_while_a_large_message_is_under_way_lives_on() -> None:
    context = Context(unread_limit_bytes=1000)
    connection, transport = make_connection(context)
    for _ in range(3):
        stuck(connection, transport, 1_000_000)
        connection.heartbeat(NOW, MAX_UNREAD_ANSWER_BYTES // len(connection.wire.heartbeat))
        # It has read.
        transport.unread_bytes = 0
        connection.resume()
    assert context.closes == []


def test_acknowledgement_up_to_what_was_sent_is_taken() -> None:
    context = Context()
    connection, _ = make_connection(context)
    connection.offer(Mid(160), b"m")
    for mid in (0, 80, 160):
        connection.acknowledge(Mid(mid))
    assert context.acknowledged == [0, 80, 160]
    connection.acknowledge(Mid(161))
    assert context.closes == [CloseReason.PROTOCOL_ERROR]


def test_older_clients_must_not_acknowledge() -> None:
    context = Context()
    connection, transport = make_connection(context, wire=ONE)
    connection.acknowledge(Mid(0))
    assert context.closes == [CloseReason.PROTOCOL_ERROR]
    assert transport.take() == b""


def test_while_it_catches_up_a_high_acknowledgement_is_ignored() -> None:
    context = Context()
    connection, _ = make_connection(context)
    connection.catch_up = CatchUp(1000, CometMetrics(Stats()), Mid(0))
    connection.acknowledge(Mid(80))
    assert context.acknowledged == []
    assert context.closes == []


# -- room


def test_who_waits_for_room_is_called_once_when_the_buffer_has_run_low() -> None:
    connection, transport = make_connection()
    calls: list[str] = []
    connection.when_room(lambda: calls.append("at once"))
    stuck(connection, transport, 10)
    connection.when_room(lambda: calls.append("later"))
    assert calls == ["at once"]
    connection.resume()
    connection.resume()
    assert calls == ["at once", "later"]


def test_who_waits_for_room_is_called_when_the_connection_ends() -> None:
    connection, transport = make_connection()
    calls: list[str] = []
    stuck(connection, transport, 10)
    connection.when_room(lambda: calls.append("ended"))
    connection.lost()
    connection.when_room(lambda: calls.append("has ended"))
    assert calls == ["ended", "has ended"]


def test_peer_is_named_while_its_socket_is_there() -> None:
    connection, transport = make_connection()
    assert connection.peer == "192.0.2.1:1234"
    assert connection.unread_bytes == 0
    transport.abort()
    assert connection.peer == ""
