"""cluster/status.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.stats import Stats
from cluster.status import StatusListener, add_process_gauges


class Port:
    """A started listener and a client for it."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.fault: str | None = None
        self.listener = StatusListener("127.0.0.1:0", self.stats, lambda: self.fault)

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


async def test_healthz_says_alive(port: Port) -> None:
    assert await port.ask("/healthz") == (200, "text/plain; charset=utf-8", "alive\n")


async def test_readyz_says_why_it_cannot_serve(port: Port) -> None:
    assert (await port.ask("/readyz"))[::2] == (200, "ready\n")
    port.fault = "draining"
    assert (await port.ask("/readyz"))[::2] == (503, "draining\n")


async def test_metrics_are_read_by_prometheus(port: Port) -> None:
    port.stats.counter("pushes_total", "Pushes.", label="result").inc("ok", 2)
    port.stats.counter("deliveries_total", "Deliveries.").inc(3)
    histogram = port.stats.histogram("push_seconds", "Latency.", (0.1, 1.0))
    histogram.observe(0.05)
    histogram.observe(5.0)
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


async def test_port_in_use_is_told_as_an_error(port: Port) -> None:
    second = StatusListener(port.address, Stats(), lambda: None)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.stop()
