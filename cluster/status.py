"""The status port: /healthz (alive), /readyz (able to serve), /metrics (Prometheus text).

Reads cluster/stats.py only when somebody asks; counts nothing itself.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from cluster.settings import join_address, split_address
from cluster.stats import Family, HistogramReading, Kind, Stats

PREFIX = "encke_"

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class StatusListener:
    """HTTP listener for probes and scrapers."""

    def __init__(self, bind: str, stats: Stats, ready_fault: Callable[[], str | None]) -> None:
        """Prepare it.

        Args:
            bind: "host:port", port 0 = any.
            ready_fault: says why this process cannot serve now; None = it can.
        """
        self._bind = bind
        self._ready_fault = ready_fault
        self._collectors = CollectorRegistry(auto_describe=False)
        self._collectors.register(_StatsCollector(stats))
        self._runner: web.ServerRunner | None = None

    async def start(self) -> str:
        """Listen; return "host:port" as it was bound.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = split_address(self._bind)
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, host or None, port)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        bound = runner.addresses[0]
        return join_address(bound[0], bound[1])

    async def stop(self) -> None:
        """Close the listener and what is connected to it."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _text(405, "method not allowed", {"Allow": "GET, HEAD"})
        if request.path == "/healthz":
            return _text(200, "alive")
        if request.path == "/readyz":
            fault = self._ready_fault()
            return _text(200, "ready") if fault is None else _text(503, fault)
        if request.path == "/metrics":
            body = generate_latest(self._collectors)
            return web.Response(body=body, headers={**_HEADERS, "Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        return _text(404, "not found; there are /healthz, /readyz and /metrics")


def add_process_gauges(stats: Stats) -> None:
    """Let the process tell its memory, descriptors and CPU time."""
    stats.gauge("process_resident_bytes", "Resident memory of this process.", _resident_bytes)
    stats.gauge("process_open_fds", "Open file descriptors.", lambda: len(os.listdir("/proc/self/fd")))
    stats.gauge(
        "process_max_fds",
        "File descriptors that this process may open.",
        lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    stats.gauge("process_cpu_seconds", "CPU time used, user and system.", _cpu_seconds)


class _StatsCollector(Collector):
    """Our numbers in the shape that prometheus_client writes."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        return [_metric(family) for family in self._stats.snapshot()]


def _metric(family: Family) -> Metric:
    name = PREFIX + family.name
    labels = [family.label] if family.label else []
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, family.text, labels=labels)
        for label_value, reading in family.readings.items():
            assert isinstance(reading, HistogramReading)
            histogram.add_metric([label_value] if labels else [], _cumulative(reading), reading.sum)
        return histogram
    # CounterMetricFamily takes "_total" off the name and writes it again.
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(name, family.text, labels=labels)
    for label_value, reading in family.readings.items():
        assert not isinstance(reading, HistogramReading)
        metric.add_metric([label_value] if labels else [], reading)
    return metric


def _cumulative(reading: HistogramReading) -> list[tuple[str, float]]:
    buckets = []
    total = 0
    names = [f"{bound:g}" for bound in reading.bounds] + ["+Inf"]
    for name, count in zip(names, reading.counts, strict=True):
        total += count
        buckets.append((name, float(total)))
    return buckets


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers={**_HEADERS, **(headers or {})})


def _resident_bytes() -> float:
    # statm: size, resident, ... in pages.
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
