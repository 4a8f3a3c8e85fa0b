"""All channels of a node: which there are, how many connections, and how long a channel must live."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.storeclocks import StoreClocks
from comet.codec.protocol import CloseReason
from comet.subscribers.connection import Connection
from comet.subscribers.hub import Hub
from comet.subscribers.outgoing import Outgoing
from tests.comet.parts import Context, make_connection

BOB, ALICE = Key("bob"), Key("alice")
NOON = Mid(1_000_000 * TICKS_PER_SECOND)


class World:
    """A hub whose time the test moves."""

    def __init__(self, max_connections_per_key: int = 2) -> None:
        self.ns = 0
        self.timers: list[tuple[float, Callable[[Key], None], Key]] = []
        self.clocks = StoreClocks(lambda: self.ns)
        self.clocks.hear(BOB, NOON, 0)
        self.hub = Hub(self.clocks, max_connections_per_key, self._call_later)
        self.context = Context()
        self.context.detach = self.hub.detach

    def _call_later(self, delay_s: float, call: Callable[[Key], None], key: Key) -> None:
        self.timers.append((delay_s, call, key))

    def connect(self, key: Key = BOB) -> Connection:
        connection, _ = make_connection(self.context)
        assert self.hub.attach(key, connection)
        return connection

    def run_timer(self) -> None:
        """Let the time of the first timer come."""
        delay_s, call, key = self.timers.pop(0)
        self.ns += int(delay_s * 1e9)
        call(key)

    def deliver(self, mid: int) -> None:
        channel = self.hub.channel(BOB)
        assert channel is not None
        channel.deliver(Outgoing(Mid(mid), b"1", is_stored=False))


def test_channel_lives_while_its_key_has_a_connection() -> None:
    world = World()
    assert world.hub.channel(BOB) is None
    first, second, other = world.connect(), world.connect(), world.connect(ALICE)
    assert (world.hub.connection_count, world.hub.channel_count) == (3, 2)
    assert list(world.hub.connections()) == [first, second, other]
    first.close(CloseReason.PEER_CLOSED)
    assert (world.hub.connection_count, world.hub.channel_count) == (2, 2)
    second.lost()
    assert (world.hub.connection_count, world.hub.channel_count) == (1, 1)
    assert world.hub.channel(BOB) is None
    assert world.timers == []


def test_one_connection_too_many_for_a_key_is_not_attached_and_others_are() -> None:
    world = World(max_connections_per_key=1)
    world.connect()
    connection, _ = make_connection(world.context)
    assert not world.hub.attach(BOB, connection)
    assert connection.channel is None
    assert world.hub.connection_count == 1
    world.hub.detach(connection)
    assert world.hub.connection_count == 1
    world.connect(ALICE)


def test_new_channel_begins_at_the_stores_clock() -> None:
    world = World()
    world.ns += 5_000_000_000
    world.connect()
    channel = world.hub.channel(BOB)
    assert channel is not None
    assert channel.cursor == NOON + 5 * TICKS_PER_SECOND


def test_channel_whose_cursor_leads_the_clock_is_kept_until_the_clock_has_passed_it() -> None:
    world = World()
    connection = world.connect()
    world.deliver(NOON + 10 * STEP)
    connection.lost()
    assert world.hub.channel_count == 1
    assert world.hub.connection_count == 0
    world.run_timer()
    assert world.hub.channel_count == 0
    assert world.clocks.now(BOB) >= NOON + 10 * STEP


def test_channel_that_is_kept_takes_who_comes_back_and_remembers_its_cursor() -> None:
    world = World()
    connection = world.connect()
    world.deliver(NOON + 10 * STEP)
    connection.lost()
    back = world.connect()
    channel = world.hub.channel(BOB)
    assert channel is not None
    assert channel.cursor == NOON + 10 * STEP
    assert channel.connections() == [back]
    # The timer of the first end finds somebody there.
    world.run_timer()
    assert world.hub.channel(BOB) is channel
    back.lost()
    assert world.hub.channel_count == 0


def test_who_comes_and_goes_while_a_channel_is_kept_does_not_start_a_timer_each_time() -> None:
    world = World()
    for _ in range(5):
        connection = world.connect()
        world.deliver(NOON + 10 * STEP)
        connection.lost()
    assert len(world.timers) == 1
    world.run_timer()
    assert world.hub.channel_count == 0
    assert world.timers == []


def test_channel_that_leads_again_is_kept_again() -> None:
    world = World()
    first = world.connect()
    world.deliver(NOON + 10 * STEP)
    first.lost()
    second = world.connect()
    world.deliver(NOON + TICKS_PER_SECOND)
    second.lost()
    world.run_timer()
    assert world.hub.channel_count == 1
    world.run_timer()
    assert world.hub.channel_count == 0
    # The first timer's successor comes to a channel that has gone.
    while world.timers:
        world.run_timer()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_closing_a_key_closes_its_connections_only(count: int) -> None:
    world = World()
    mine = [world.connect() for _ in range(count)]
    other = world.connect(ALICE)
    assert world.hub.close_key(BOB, CloseReason.DELETED) == count
    assert [connection.closed_for for connection in mine] == [CloseReason.DELETED] * count
    assert not other.has_ended()
    assert world.hub.channel(BOB) is None
