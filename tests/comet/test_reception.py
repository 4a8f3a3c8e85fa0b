"""The way in and out of the hub, in the time of a clock that the test moves: refusals, deadlines, counts."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from cluster.members import Members
from cluster.model import Key, Mid, NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from cluster.storeclocks import StoreClocks
from cluster.tokens import TokenVerifier, mint
from comet.codec.protocol import RESUME_ACKNOWLEDGED, ClientVersion, CloseReason, Refusal, Subscribe
from comet.codec.wires import TcpWire
from comet.config import CometConfig
from comet.metrics import CometMetrics
from comet.ownership.ownership import Ownership
from comet.reception import Reception
from comet.sockets.timers import TimerWheel
from comet.subscribers.acknowledgements import Acknowledgements
from comet.subscribers.catchup import Resumer
from comet.subscribers.connection import Connection
from comet.subscribers.hub import Hub
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.store import EmbeddedStore
from tests.comet.sockets.test_timers import Loop
from tests.support.transport import MemoryTransport

LOGGER = "comet.reception"
TWO = TcpWire(ClientVersion.TWO)
UNIX = 1_800_000_000.0
ADDRESSES = {"tcp": ("192.0.2.1:6969",)}


class Desk:
    """A reception with everything behind it, and a loop that stands still."""

    def __init__(self, data_dir: Path, *, secrets: tuple[str, ...] = (), capacity: int = 10, **settings: Any):
        config = dataclasses.replace(CometConfig(), **settings)
        self.loop = Loop()
        self.wheel = TimerWheel(self.loop)
        self.wheel.start()
        self.metrics = CometMetrics(Stats())
        self.registry = MemoryRegistry()
        self.members = Members(self.registry)
        clocks = StoreClocks(lambda: 0)
        self.store = store = EmbeddedStore(EmbeddedSettings(data_dir=str(data_dir)), Stats())
        self.hub = Hub(clocks, config.max_connections_per_key, lambda *_: None)
        ownership = Ownership(NodeName("comet-1"), self.members.current)
        self.members.watch(ownership.take)
        ownership.serve_at(ADDRESSES)
        self.acknowledgements = Acknowledgements(store, 60.0, 1.0, self.metrics)
        self.reception = Reception(
            config,
            capacity,
            self.hub,
            ownership,
            TokenVerifier(secrets),
            Resumer(store, clocks, config, self.metrics),
            self.acknowledgements,
            self.wheel,
            self.metrics,
            unix_time=lambda: UNIX + self.loop.now,
        )
        self._start = self.loop.now

    @classmethod
    async def open(cls, data_dir: Path, **arguments: Any) -> Desk:
        """A desk of a node that is registered, and whose store refuses everything."""
        desk = cls(data_dir, **arguments)
        await desk.store.start()
        await desk.store.stop()
        await desk.register("comet-1", ADDRESSES)
        return desk

    async def register(self, name: str, addresses: dict[str, tuple[str, ...]], weight: int = 1) -> None:
        await self.registry.register(NodeInfo(NodeKind.COMET, NodeName(name), name, addresses, weight))

    def token(self, key: str, ttl_s: int) -> str:
        return mint("s3cret", Key(key), int(UNIX + self.loop.now) + ttl_s)

    def ask(
        self,
        key: str = "bob",
        *,
        token: str = "",
        resume: Mid | None = None,
        transport: MemoryTransport | None = None,
    ) -> tuple[Connection | Refusal, MemoryTransport]:
        """Subscribe, and let it take effect."""
        transport = transport or MemoryTransport()
        subscribe = Subscribe(Key(key), 30, token, ClientVersion.TWO, resume, "phone")
        return self.reception.subscribe(subscribe, transport, TWO, b"<greeting>"), transport

    def let_in(self, key: str = "bob", **arguments: Any) -> tuple[Connection, MemoryTransport]:
        connection, transport = self.ask(key, **arguments)
        assert isinstance(connection, Connection)
        transport.take()
        return connection, transport

    def closes(self) -> dict[str, int]:
        return {label: child.value for label, child in self.metrics.closes.children.items()}

    def refusals(self) -> dict[str, int]:
        return {label: child.value for label, child in self.metrics.refusals.children.items()}


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What the reception has logged."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == LOGGER]


async def test_subscriber_is_attached_then_greeted_and_its_deadline_watched(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    connection, transport = desk.ask()
    assert isinstance(connection, Connection)
    assert transport.take() == b"<greeting>+h\r\n"
    channel = desk.hub.channel(Key("bob"))
    assert channel is not None
    assert channel.connections() == [connection]
    assert desk.wheel.items() == [connection]
    assert desk.refusals() == {}


@pytest.mark.parametrize("version", ClientVersion)
async def test_missed_heartbeat_closes_and_a_peer_that_stays_is_cut_after_the_linger(
    tmp_path: Path, version: ClientVersion
) -> None:
    desk = await Desk.open(tmp_path)
    transport = MemoryTransport()
    subscribe = Subscribe(Key("bob"), 30, "", version, None, "")
    connection = desk.reception.subscribe(subscribe, transport, TcpWire(version))
    assert isinstance(connection, Connection)
    desk.loop.advance(34.9)
    assert not connection.has_ended()
    desk.loop.advance(0.5)
    assert connection.closed_for is CloseReason.HEARTBEAT_MISSED
    assert desk.hub.connection_count == 0
    assert desk.closes() == {"heartbeat_missed": 1}
    desk.loop.advance(2.5)
    assert transport.ends[-1] == "abort"
    connection.lost()
    assert len(desk.wheel) == 0


async def test_heartbeats_keep_a_connection(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    connection, _ = desk.let_in()
    for _ in range(10):
        desk.loop.advance(30)
        connection.heartbeat(desk.loop.now)
    assert not connection.has_ended()


async def test_token_that_expires_closes_with_4401_and_a_heartbeat_does_not_help(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, secrets=("s3cret",))
    connection, transport = desk.let_in(token=desk.token("bob", 12))
    desk.loop.advance(11)
    connection.heartbeat(desk.loop.now)
    assert transport.take() == b"+h\r\n"
    desk.loop.advance(1.5)
    assert transport.take() == b"-4401 token refused or expired\r\n"
    assert desk.closes() == {"bad_token": 1}


async def test_token_is_asked_for_when_there_is_a_secret(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, secrets=("s3cret",))
    for token in ("", desk.token("alice", 60), desk.token("bob", 0), desk.token("bob", -5)):
        refusal, transport = desk.ask(token=token)
        assert refusal is Refusal.BAD_TOKEN
        assert transport.take() == b""
    assert desk.refusals() == {"bad_token": 4}
    assert (len(desk.wheel), desk.hub.connection_count) == (0, 0)
    desk.let_in(token=desk.token("bob", 60))


async def test_address_of_many_bad_tokens_waits_whatever_it_shows_and_others_do_not(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, secrets=("s3cret",), token_failures_per_minute=3)
    for _ in range(3):
        assert desk.ask(token="guess", transport=MemoryTransport("192.0.2.9:1"))[0] is Refusal.BAD_TOKEN
    for token in ("guess", desk.token("bob", 600)):
        assert desk.ask(token=token, transport=MemoryTransport("192.0.2.9:2"))[0] is Refusal.TOO_MANY_TOKENS
    assert desk.refusals() == {"bad_token": 3, "too_many_tokens": 2}
    desk.let_in(token=desk.token("bob", 600), transport=MemoryTransport("192.0.2.8:1"))
    desk.loop.advance(20.5)
    desk.let_in(token=desk.token("bob", 600), transport=MemoryTransport("192.0.2.9:3"))


async def test_address_that_has_shown_a_good_token_never_waits(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, secrets=("s3cret",), token_failures_per_minute=3)
    desk.let_in(token=desk.token("bob", 60), transport=MemoryTransport("[2001:db8::1]:1"))
    for port in range(2, 12):
        refusal, _ = desk.ask(token="guess", transport=MemoryTransport(f"[2001:db8::1]:{port}"))
        assert refusal is Refusal.BAD_TOKEN
    desk.let_in(token=desk.token("bob", 60), transport=MemoryTransport("[2001:db8::1]:12"))


@pytest.mark.parametrize("settings", [{"secrets": ()}, {"token_failures_per_minute": 0}])
async def test_without_secrets_or_a_limit_no_address_waits(tmp_path: Path, settings: dict[str, Any]) -> None:
    desk = await Desk.open(tmp_path, **{"secrets": ("s3cret",), "token_failures_per_minute": 1, **settings})
    answers = {desk.ask(f"key-{n}", token="guess")[0] for n in range(5)}
    assert Refusal.TOO_MANY_TOKENS not in answers


async def test_full_node_refuses_until_somebody_leaves(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, capacity=2)
    first, _ = desk.let_in("a")
    desk.let_in("b")
    assert desk.ask("c")[0] is Refusal.OVERLOADED
    first.lost()
    desk.let_in("c")
    assert desk.ask("d")[0] is Refusal.OVERLOADED
    assert desk.refusals() == {"overloaded": 2}


async def test_one_connection_too_many_of_a_key_is_refused(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, max_connections_per_key=2)
    desk.let_in()
    desk.let_in()
    assert desk.ask()[0] is Refusal.TOO_MANY
    desk.let_in("other")
    assert desk.refusals() == {"too_many": 1}
    assert desk.hub.connection_count == len(desk.wheel) == 3


async def test_key_of_another_node_is_refused(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    await desk.register("comet-2", {"tcp": ("192.0.2.2:6969",)}, weight=9)
    answers = [desk.ask(f"key-{n}")[0] for n in range(20)]
    assert Refusal.NOT_OWNER in answers
    assert desk.refusals()["moved"] == answers.count(Refusal.NOT_OWNER)


async def test_node_that_is_not_registered_owns_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.ask()[0] is Refusal.NOT_OWNER


async def test_draining_node_refuses_and_keeps_who_is_there(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    connection, _ = desk.let_in()
    desk.reception.drain()
    assert desk.ask()[0] is Refusal.DRAINING
    assert not connection.has_ended()
    assert desk.refusals() == {"draining": 1}


async def test_transport_that_fails_at_the_greeting_leaves_nothing(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    transport = MemoryTransport()
    transport.has_failed = True
    connection, _ = desk.ask(transport=transport)
    assert isinstance(connection, Connection)
    assert desk.hub.channel_count == 0
    # The loop reports it a turn later.
    connection.lost()
    assert len(desk.wheel) == 0
    assert desk.closes() == {"peer_lost": 1}


async def test_sockets_that_never_subscribed_are_counted_by_reason(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    desk.reception.turn_away(CloseReason.HANDSHAKE_TIMEOUT)
    desk.reception.turn_away(CloseReason.PARAMETER)
    assert desk.refusals() == {"handshake_timeout": 1, "parameter": 1}


async def test_message_without_room_is_counted_once_and_so_is_the_close(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path, unread_limit_bytes=16 * 1024)
    connection, transport = desk.let_in()
    connection.pause()
    transport.unread_bytes = 16 * 1024 + 1
    assert not connection.offer(Mid(80), b"x")
    connection.heartbeat(desk.loop.now)
    assert desk.metrics.drops.children["slow_consumer"].value == 1
    assert desk.closes() == {"slow_consumer": 1}


async def test_slow_consumer_is_told_of_with_what_it_has_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    desk = await Desk.open(tmp_path, unread_limit_bytes=16 * 1024)
    connection, transport = desk.let_in()
    transport.unread_bytes = 16 * 1024 + 1
    connection.offer(Mid(80), b"x")
    connection.offer(Mid(160), b"x")
    desk.let_in("alice")[0].close(CloseReason.PEER_CLOSED)
    assert told(caplog) == [("WARNING", "slow consumer, cut: key=bob unread_bytes=16385")]


async def test_debug_level_tells_of_each_connection_when_it_begins_and_why_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    desk = await Desk.open(tmp_path)
    desk.let_in()[0].close(CloseReason.DELETED)
    # Of one that its peer has cut the address is not known any more.
    connection, transport = desk.let_in("alice", resume=Mid(80))
    transport.has_failed = True
    connection.lost()
    desk.let_in("carol", resume=RESUME_ACKNOWLEDGED)[0].close(CloseReason.PEER_CLOSED)
    assert told(caplog) == [
        ("DEBUG", "subscribed: key=bob peer=192.0.2.1:1234 transport=tcp resume=no"),
        ("DEBUG", "connection ended: key=bob peer=192.0.2.1:1234 reason=deleted"),
        ("DEBUG", "subscribed: key=alice peer=192.0.2.1:1234 transport=tcp resume=80"),
        ("DEBUG", "connection ended: key=alice peer= reason=peer_lost"),
        ("DEBUG", "subscribed: key=carol peer=192.0.2.1:1234 transport=tcp resume=ack"),
        ("DEBUG", "connection ended: key=carol peer=192.0.2.1:1234 reason=peer_closed"),
    ]
    await desk.reception._resumer.stop()


async def test_transport_that_fails_at_the_greeting_has_begun_before_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    desk = await Desk.open(tmp_path)
    transport = MemoryTransport()
    transport.has_failed = True
    desk.ask(transport=transport)
    assert [text.partition(":")[0] for _, text in told(caplog)] == ["subscribed", "connection ended"]


async def test_nobody_asks_for_a_peer_that_is_not_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    desk = await Desk.open(tmp_path)
    # A system call of each subscriber's.
    monkeypatch.delattr(MemoryTransport, "peer")
    desk.let_in()[0].close(CloseReason.DELETED)
    assert told(caplog) == []


async def test_acknowledgement_is_kept_for_the_device_until_the_connection_has_ended(tmp_path: Path) -> None:
    desk = await Desk.open(tmp_path)
    await desk.store.start()
    connection, _ = desk.let_in()
    connection.offer(Mid(160), b"x")
    connection.acknowledge(Mid(80))
    assert await desk.acknowledgements.resume_point(Key("bob"), "phone") == 80
    connection.close(CloseReason.PEER_CLOSED)
    connection.acknowledge(Mid(160))
    assert await desk.acknowledgements.resume_point(Key("bob"), "phone") == 80
    await desk.acknowledgements.stop()
    await desk.store.stop()


async def test_resume_is_begun_before_anything_can_be_delivered_and_ends_with_the_connection(
    tmp_path: Path,
) -> None:
    desk = await Desk.open(tmp_path)
    connection, transport = desk.ask(resume=Mid(80))
    assert isinstance(connection, Connection)
    assert connection.catch_up is not None
    assert transport.take() == b"<greeting>+h\r\n"
    resumer = desk.reception._resumer
    assert resumer.active_count == 1
    connection.lost()
    await resumer.stop()
    assert resumer.active_count == 0
    assert desk.closes() == {"peer_lost": 1}
