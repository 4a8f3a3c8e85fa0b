"""What one push to very many keys costs, next to a C loop of send().

The server gets one mprivate (expire 0) to 10,000 keys with one live connection
each; the baseline sends a frame of the same bytes to 10,000 subscribers of its
own. They take turns within one run, so that both see the same machine. Then
pushes follow each other without a pause while the server measures how late
its event loop runs. Run: python -m bench.fanout [--keys N] [--rounds N]
"""

from __future__ import annotations

import sys
import time

from bench import usage
from bench.programs import KINDS, Baseline, Load, Wire, build
from bench.report import Figure, figure, tell
from bench.server import Server
from encke.commands.arguments import Parser

# CPU per delivered message, as a multiple of the C loop's in the same run.
MAX_RATIO = 1.6
MAX_LAG_MS = 20.0
LAG_QUANTILE = 0.999

WARM_UP_ROUNDS = 2
# The event loop's lateness is looked at every 2 ms, so that the pushes of one
# run yield the thousands of samples that a 99.9th percentile needs. In a server
# of its own, because looking costs CPU too.
LAG_SETTINGS = {"ENCKE_PROCESS__LAG_PROBE_S": "0.002"}
# One stop of 20 ms is the 99.9th percentile of a round, and a machine has such of its own: every few seconds
# a thread of its kernel takes the core, say. So rounds take about a second, and are many.
LAG_ROUNDS = 15
LAG_METRIC = "encke_loop_lag_seconds_bucket"


def lag_quantile_ms(before: dict[str, float], after: dict[str, float], q: float) -> tuple[float, float]:
    """The q-quantile of the lateness between two readings of /metrics.

    Returns:
        The upper bound (ms) of the histogram's range that holds it, and the number of samples.
    """
    grown = sorted(
        (float(name.split('"')[1]), count - before.get(name, 0.0))
        for name, count in after.items()
        if name.startswith(LAG_METRIC)
    )
    if not grown or not grown[-1][1]:
        raise RuntimeError("the server has measured no lateness of its event loop")
    samples = grown[-1][1]
    for bound, count in grown:
        if count >= q * samples:
            return bound * 1e3, samples
    raise AssertionError("the last range holds everything")


def measure_cpu(wire: Wire, keys: int, rounds: int) -> list[Figure]:
    """Take turns with the baseline."""
    ours: list[float] = []
    theirs: list[float] = []
    last_ms: list[float] = []
    with (
        Server() as server,
        Baseline(wire) as baseline,
        Load(wire, server.ports[wire], server.ports["admin"]) as load,
        Load(wire, baseline.port) as baseline_load,
    ):
        load.open(keys)
        load.pushers(1)
        baseline_load.open(keys)
        for number in range(WARM_UP_ROUNDS + rounds):
            sent_us = baseline.send(baseline_load, keys)
            before = server.cpu_s()
            answer = load.fan(keys)
            delivered_us = (server.cpu_s() - before) / keys * 1e6
            if number >= WARM_UP_ROUNDS:
                theirs.append(sent_us)
                ours.append(delivered_us)
                last_ms.append(answer["last_ms"])
    kind = KINDS[wire]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return [
        figure(f"{kind}: CPU per delivered message", ours, "us"),
        figure(f"{kind}: C loop of send()", theirs, "us"),
        figure(f"{kind}: ratio", ratios, "x", MAX_RATIO),
        figure(f"{kind}: push to last delivery", last_ms, "ms"),
    ]


def measure_lag(wire: Wire, keys: int, pushes: int) -> list[Figure]:
    """Load the event loop with pushes that follow each other at once, in rounds."""
    lags: list[float] = []
    counts: list[float] = []
    waits: list[float] = []
    with (
        Server(LAG_SETTINGS) as server,
        Load(wire, server.ports[wire], server.ports["admin"]) as load,
    ):
        load.open(keys)
        load.pushers(1)
        for _ in range(WARM_UP_ROUNDS):
            load.fan(keys)
        # The first answer of /metrics holds the loop for 30 ms, later ones for less than 10.
        server.metrics()
        for _ in range(LAG_ROUNDS):
            before = server.metrics()
            waited, began = usage.waited_s(server.pid), time.monotonic()
            for _ in range(pushes):
                load.fan(keys)
            waits.append((usage.waited_s(server.pid) - waited) / (time.monotonic() - began) * 100)
            lag_ms, samples = lag_quantile_ms(before, server.metrics(), LAG_QUANTILE)
            lags.append(lag_ms)
            counts.append(samples)
    kind = KINDS[wire]
    return [
        figure(f"{kind}: loop lag p99.9, at most", lags, "ms", MAX_LAG_MS),
        figure(f"{kind}: samples of the lag", counts, ""),
        # A server that is kept from running is late without being slow.
        figure(f"{kind}: time without a core meanwhile", waits, "%"),
    ]


def run(keys: int, rounds: int, lag_pushes: int) -> bool:
    """Measure and tell; whether the targets are met."""
    build()
    figures: list[Figure] = []
    for wire in KINDS:
        figures += measure_cpu(wire, keys, rounds) + measure_lag(wire, keys, lag_pushes)
    return tell(f"one push to {keys} keys with a connection each, expire 0", figures)


if __name__ == "__main__":
    parser = Parser(description="CPU of a push to many keys, and the loop's lag meanwhile.")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lag-pushes", type=int, default=16)
    arguments = parser.parse_args()
    sys.exit(0 if run(arguments.keys, arguments.rounds, arguments.lag_pushes) else 1)
