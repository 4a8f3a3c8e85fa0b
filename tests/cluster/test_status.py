"""cluster/status.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.process import add_process_gauges
from cluster.stats import Stats
from cluster.status import MAX_CONNECTIONS, MAX_HEAD_BYTES, StatusListener
from tests.support.eventually import eventually
from tests.support.peer import Address, Peer


class Port:
    """A started listener and a client for it."""

    def __init__(self, deadline_s: float = 10.0) -> None:
        self.stats = Stats()
        self.fault: str | None = None
        self.notes: list[str] = []
        self.listener = StatusListener(
            "127.0.0.1:0",
            self.stats,
            lambda: self.fault,
            lambda: self.notes,
            {"/status": lambda: "{}"},
            deadline_s,
        )

    @property
    def place(self) -> Address:
        host, _, number = self.address.rpartition(":")
        return host, int(number)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        url = f"http://{self.address}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
            return answer.status, answer.headers["Content-Type"], await answer.text()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    port = Port()
    port.address = await port.listener.start()
    yield port
    await port.listener.stop()


@contextlib.asynccontextmanager
async def hasty_port() -> AsyncIterator[Port]:
    """One that soon loses patience."""
    port = Port(deadline_s=0.1)
    port.address = await port.listener.start()
    try:
        yield port
    finally:
        await port.listener.stop()


async def test_healthz_says_alive(port: Port) -> None:
    assert await port.ask("/healthz") == (200, "text/plain; charset=utf-8", "alive\n")


async def test_readyz_says_why_it_cannot_serve(port: Port) -> None:
    assert (await port.ask("/readyz"))[::2] == (200, "ready\n")
    port.fault = "draining"
    assert (await port.ask("/readyz"))[::2] == (503, "draining\n")


async def test_document_is_answered_as_json(port: Port) -> None:
    assert await port.ask("/status") == (200, "application/json;charset=utf-8", "{}")


async def test_readyz_tells_notes_whether_it_can_serve_or_not(port: Port) -> None:
    port.notes = ["store: safe"]
    assert (await port.ask("/readyz"))[2] == "ready\nstore: safe\n"
    port.fault = "draining"
    assert (await port.ask("/readyz"))[2] == "draining\nstore: safe\n"


async def test_metrics_are_read_by_prometheus(port: Port) -> None:
    port.stats.counter("pushes_total", "Pushes.", label="result").inc("ok", 2)
    port.stats.counter("deliveries_total", "Deliveries.").inc(3)
    histogram = port.stats.histogram("push_seconds", "Latency.", (0.1, 1.0))
    histogram.observe(0.05)
    histogram.observe(5.0)
    port.stats.counter("odd_total", "Odd: \\ and\nlines.", label="what").inc('a "b" \\ c\nd')
    port.stats.gauge("channels", "Channels.", lambda: 7)
    port.stats.gauges("connections", "Connections.", "transport", lambda: {"ws": 1, "tcp": 2})

    status, content_type, text = await port.ask("/metrics")

    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {
        (s.name, *s.labels.values()): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples == {
        ("encke_pushes_total", "ok"): 2,
        ("encke_deliveries_total",): 3,
        ("encke_push_seconds_bucket", "0.1"): 1,
        ("encke_push_seconds_bucket", "1"): 1,
        ("encke_push_seconds_bucket", "+Inf"): 2,
        ("encke_push_seconds_count",): 2,
        ("encke_push_seconds_sum",): 5.05,
        ("encke_odd_total", 'a "b" \\ c\nd'): 1,
        ("encke_channels",): 7,
        ("encke_connections", "ws"): 1,
        ("encke_connections", "tcp"): 2,
    }


async def test_process_gauges_tell_memory_descriptors_and_cpu(port: Port) -> None:
    add_process_gauges(port.stats)
    text = (await port.ask("/metrics"))[2]
    values = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert values["encke_process_resident_bytes"] > 1_000_000
    assert 3 < values["encke_process_open_fds"] < values["encke_process_max_fds"]
    assert values["encke_process_cpu_seconds"] > 0


async def test_other_paths_and_methods_are_refused(port: Port) -> None:
    assert (await port.ask("/"))[0] == 404
    assert (await port.ask("/metrics", "POST"))[0] == 405


async def test_head_of_an_answer_comes_alone_when_asked_for(port: Port) -> None:
    peer = await Peer.connect(port.place)
    await peer.send(b"HEAD /healthz?x=1 HTTP/1.0\r\n\r\n")
    answer = await peer.read_to_end()
    await peer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/2\r\n\r\n", b"400"),
        (b"\xff\xfe\x00\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, b"431"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\nX: y\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n", b"200"),
    ],
    ids=["no request", "version", "garbage", "endless head", "long head", "two requests"],
)
async def test_one_request_is_answered_whatever_it_is(port: Port, request_: bytes, status: bytes) -> None:
    peer = await Peer.connect(port.place)
    await peer.send(request_)
    answer = await peer.read_to_end()
    await peer.close()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("half", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
async def test_half_a_request_is_closed_without_a_word(half: bytes) -> None:
    async with hasty_port() as port:
        peer = await Peer.connect(port.place)
        await peer.send(half)
        assert await peer.read_to_end() == b""
        await peer.close()


async def test_request_that_drips_gets_no_more_time() -> None:
    async with hasty_port() as port:
        peer = await Peer.connect(port.place)
        with contextlib.suppress(ConnectionError):
            while not peer.reader.at_eof():
                await peer.send(b"x")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        assert await peer.reader.read(1) == b""
        await peer.close()


async def test_half_of_a_request_and_its_end_is_no_request(port: Port) -> None:
    peer = await Peer.connect(port.place)
    await peer.send(b"GET /met")
    peer.writer.write_eof()
    assert await peer.read_to_end() == b""
    await peer.close()


async def test_more_connections_than_probes_need_are_closed_at_once(port: Port) -> None:
    peers = [await Peer.connect(port.place) for _ in range(MAX_CONNECTIONS)]
    await eventually(lambda: len(port.listener._context.connections) == MAX_CONNECTIONS)
    late = await Peer.connect(port.place)
    assert await late.read_to_end() == b""
    for peer in [*peers, late]:
        await peer.close()
    await eventually(lambda: not port.listener._context.connections)
    assert (await port.ask("/healthz"))[0] == 200


async def test_stop_ends_what_is_connected(port: Port) -> None:
    peer = await Peer.connect(port.place)
    await eventually(lambda: bool(port.listener._context.connections))
    await port.listener.stop()
    assert await peer.read_to_end() == b""
    await peer.close()


async def test_port_in_use_is_told_as_an_error(port: Port) -> None:
    second = StatusListener(port.address, Stats(), lambda: None)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.stop()


async def test_port_that_is_switched_off_is_nowhere() -> None:
    listener = StatusListener("", Stats(), lambda: None)
    assert await listener.start() == ""
    assert listener.addresses == {}
    await listener.stop()


async def test_port_is_where_it_says(port: Port) -> None:
    assert port.listener.addresses == {"status": port.address}
