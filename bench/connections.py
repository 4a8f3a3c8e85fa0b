"""What an idle subscriber costs: resident bytes, and CPU to connect it.

Each round starts a server of its own, subscribes 15,000 keys, has each send
one heartbeat (memory that a heartbeat takes counts), and then reads what the
process has grown by. Run: python -m bench.connections [--count N] [--rounds N]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bench import usage
from bench.programs import KINDS, Baseline, Load, Wire, build
from bench.report import REFERENCE_CONNECTIONS, Figure, figure, in_sends, tell
from bench.server import Server
from encke.commands.arguments import Parser

# At most, per connection.
RESIDENT_BYTES: dict[Wire, float] = {"tcp": 1000, "ws": 1000}
CONNECT_US: dict[Wire, float] = {"tcp": 40, "ws": 50}

# Subscribed and reset before the first reading, so that code and tables that
# the first connections need are not counted as theirs.
WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Round:
    """One server's figures, per connection."""

    resident_bytes: float
    resident_after_beat_bytes: float
    connect_us: float
    beat_us: float
    baseline_connect_us: float
    # To REFERENCE_CONNECTIONS.
    baseline_send_us: float


def measure(wire: Wire, count: int) -> Round:
    """Subscribe `count` keys at a fresh server and at the baseline."""
    with Server() as server, Load(wire, server.ports[wire]) as load:
        load.open(WARM_UP)
        load.close()
        memory = server.resident_bytes()
        cpu = server.cpu_s()
        load.open(count)
        cpu_open = server.cpu_s()
        memory_open = server.resident_bytes()
        cpu_before_beat = server.cpu_s()
        load.beat()
        cpu_beat = server.cpu_s()
        memory_beat = server.resident_bytes()
    baseline_connect_us, baseline_send_us = _measure_baseline(wire, count)
    return Round(
        resident_bytes=(memory_open - memory) / count,
        resident_after_beat_bytes=(memory_beat - memory) / count,
        connect_us=(cpu_open - cpu) / count * 1e6,
        beat_us=(cpu_beat - cpu_before_beat) / count * 1e6,
        baseline_connect_us=baseline_connect_us,
        baseline_send_us=baseline_send_us,
    )


def _measure_baseline(wire: Wire, count: int) -> tuple[float, float]:
    """CPU us to accept and answer `count` connections, and of a send()."""
    with Baseline(wire) as baseline, Load(wire, baseline.port) as load:
        before = usage.cpu_s(baseline.pid)
        load.open(count)
        # It has answered everyone, so it waits in epoll: nothing runs on.
        connect_us = (usage.cpu_s(baseline.pid) - before) / count * 1e6
    with Baseline(wire) as baseline, Load(wire, baseline.port) as load:
        load.open(REFERENCE_CONNECTIONS)
        return connect_us, baseline.send(load, REFERENCE_CONNECTIONS)


def _figures(wire: Wire, rounds: list[Round]) -> list[Figure]:
    kind = KINDS[wire]
    memory, connect = RESIDENT_BYTES[wire], CONNECT_US[wire]
    connect_us = [r.connect_us for r in rounds]
    return [
        figure(f"{kind}: resident, idle", [r.resident_bytes for r in rounds], "B/conn", memory),
        figure(
            f"{kind}: resident, after a heartbeat",
            [r.resident_after_beat_bytes for r in rounds],
            "B/conn",
            memory,
        ),
        figure(f"{kind}: CPU to subscribe", connect_us, "us/conn", connect),
        in_sends(f"{kind}: CPU to subscribe", connect_us, [r.baseline_send_us for r in rounds], connect),
        figure(f"{kind}: the same in C (accept, answer)", [r.baseline_connect_us for r in rounds], "us/conn"),
        figure(f"{kind}: C loop of send()", [r.baseline_send_us for r in rounds], "us"),
        figure(f"{kind}: CPU of a heartbeat", [r.beat_us for r in rounds], "us"),
    ]


def run(count: int, rounds: int) -> bool:
    """Measure and tell; whether the targets are met."""
    build()
    results: dict[Wire, list[Round]] = {"tcp": [], "ws": []}
    for _ in range(rounds):
        for wire in KINDS:
            results[wire].append(measure(wire, count))
    figures = [f for wire in KINDS for f in _figures(wire, results[wire])]
    return tell(f"{count} idle subscribers, each with its own key, one process", figures)


if __name__ == "__main__":
    parser = Parser(description="Memory of idle subscribers and CPU to connect them.")
    parser.add_argument("--count", type=int, default=15_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sys.exit(0 if run(arguments.count, arguments.rounds) else 1)
