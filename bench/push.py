"""What a single push over HTTP costs the whole server process.

64 keep-alive connections push to 64 keys with a subscriber each, one push in
flight per connection; expire 0 and expire 600 (durable before the answer) take
turns. In between a loop in C sends to 10,000 connections: a measure of the
machine, in whose sends the figures are told once more. Run: python -m bench.push [--pushes N] [--rounds N]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from bench.programs import Baseline, Load, Wire, build
from bench.report import REFERENCE_CONNECTIONS, Figure, figure, in_sends, tell
from bench.server import Server
from encke.commands.arguments import Parser

MAX_UNSAVED_US = 60.0
MAX_SAVED_US = 90.0

IN_FLIGHT = 64
EXPIRE_S = 600
WARM_UP_PUSHES = 2_000
# The default, written down because the target is about it.
SETTINGS = {"ENCKE_MESSAGE__DURABILITY": "fsync"}
WIRE: Wire = "ws"


@dataclass(slots=True)
class _Series:
    """The rounds of one kind of push."""

    cpu_us: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    answer_p99_ms: list[float] = field(default_factory=list)
    delivery_p50_ms: list[float] = field(default_factory=list)


def measure(pushes: int, rounds: int) -> list[Figure]:
    """Push unsaved and saved in turn."""
    unsaved, saved = _Series(), _Series()
    sent: list[float] = []
    with (
        Server(SETTINGS) as server,
        Baseline(WIRE) as baseline,
        Load(WIRE, server.ports[WIRE], server.ports["admin"]) as load,
        Load(WIRE, baseline.port) as baseline_load,
    ):
        load.open(IN_FLIGHT)
        load.pushers(IN_FLIGHT)
        baseline_load.open(REFERENCE_CONNECTIONS)
        load.push(WARM_UP_PUSHES, 0)
        load.push(WARM_UP_PUSHES, EXPIRE_S)
        for _ in range(rounds):
            sent.append(baseline.send(baseline_load, REFERENCE_CONNECTIONS))
            _push(server, load, pushes, 0, unsaved)
            _push(server, load, pushes, EXPIRE_S, saved)
    return [
        *_figures("expire 0", unsaved, sent, MAX_UNSAVED_US),
        *_figures(f"expire {EXPIRE_S}, durable", saved, sent, MAX_SAVED_US),
        figure(f"C loop of send(), {REFERENCE_CONNECTIONS} connections", sent, "us"),
    ]


def _push(server: Server, load: Load, pushes: int, expire_s: int, series: _Series) -> None:
    before = server.cpu_s()
    answer = load.push(pushes, expire_s)
    series.cpu_us.append((server.cpu_s() - before) / pushes * 1e6)
    series.per_s.append(pushes / answer["seconds"])
    series.answer_p99_ms.append(answer["answer_p99_us"] / 1e3)
    series.delivery_p50_ms.append(answer["delivery_p50_us"] / 1e3)


def _figures(name: str, series: _Series, sent: list[float], target: float) -> list[Figure]:
    cpu = f"{name}: CPU of the process per push"
    return [
        figure(cpu, series.cpu_us, "us", target),
        in_sends(cpu, series.cpu_us, sent, target),
        figure(f"{name}: pushes a second", series.per_s, "1/s"),
        figure(f"{name}: p99 push to answer", series.answer_p99_ms, "ms"),
        figure(f"{name}: p50 push to delivery", series.delivery_p50_ms, "ms"),
    ]


def run(pushes: int, rounds: int) -> bool:
    """Measure and tell; whether the targets are met."""
    build()
    return tell(f"single pushes over HTTP, {IN_FLIGHT} in flight", measure(pushes, rounds))


if __name__ == "__main__":
    parser = Parser(description="CPU of single pushes over HTTP keep-alive.")
    parser.add_argument("--pushes", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    sys.exit(0 if run(arguments.pushes, arguments.rounds) else 1)
