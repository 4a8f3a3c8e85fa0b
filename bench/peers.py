"""What the same work costs here and in nginx with its module nchan, a push server in C.

Both are one process, hold idle WebSocket subscribers with a channel each, and
are pushed to by one backend that keeps its connections; neither stores
anything (expire 0). They take turns within one run. A push to many goes to
10,000 keys here; nchan has no such push, so there it goes to one channel with
10,000 subscribers, which is less work. Run: python -m bench.peers [--rounds N]
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from bench import usage
from bench.connections import WARM_UP
from bench.fanout import WARM_UP_ROUNDS
from bench.nchan import Nchan
from bench.programs import Load, LoadWire, build
from bench.push import IN_FLIGHT, WARM_UP_PUSHES
from bench.report import Figure, figure, tell
from bench.server import Server
from encke.commands.arguments import Parser


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server."""

    pid: int
    wire: LoadWire
    subscriber_port: int
    push_port: int

    def cpu_s(self) -> float:
        """CPU seconds used so far, once it is quiet."""
        return usage.quiet_cpu_s(self.pid)

    def load(self) -> Load:
        """A load client for it."""
        return Load(self.wire, self.subscriber_port, self.push_port)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one server took in one round: memory a connection; CPU a connection, a push, a message."""

    resident_bytes: float
    connect_us: float
    push_us: float
    message_us: float


@contextlib.contextmanager
def ours(_is_shared: bool) -> Iterator[Peer]:
    """Run `encke serve`, where a push reaches many whose keys are their own."""
    with Server() as server:
        yield Peer(server.pid, "ws", server.ports["ws"], server.ports["admin"])


@contextlib.contextmanager
def theirs(is_shared: bool) -> Iterator[Peer]:
    """Run nginx.

    Args:
        is_shared: all subscribers are of one channel, not of one each.
    """
    with (
        tempfile.TemporaryDirectory(prefix="encke-bench-") as directory,
        Nchan(Path(directory) / "nginx", "all" if is_shared else "$arg_key") as nchan,
    ):
        yield Peer(nchan.pid, "nchan", nchan.port, nchan.port)


SERVERS = {"encke": ours, "nginx with nchan": theirs}


def measure(name: str, count: int, keys: int, pushes: int, fans: int) -> Costs:
    """Have one server do everything once."""
    start = SERVERS[name]
    with start(False) as peer, peer.load() as load:
        resident_bytes, connect_us = _connect(peer, load, count)
    with start(False) as peer, peer.load() as load:
        push_us = _push(peer, load, pushes)
    with start(True) as peer, peer.load() as load:
        message_us = _fan(peer, load, keys, fans)
    return Costs(resident_bytes, connect_us, push_us, message_us)


def _connect(peer: Peer, load: Load, count: int) -> tuple[float, float]:
    load.open(WARM_UP)
    load.close()
    cpu, memory = peer.cpu_s(), usage.resident_bytes(peer.pid)
    load.open(count)
    cpu = peer.cpu_s() - cpu
    memory = usage.resident_bytes(peer.pid) - memory
    return memory / count, cpu / count * 1e6


def _push(peer: Peer, load: Load, pushes: int) -> float:
    load.open(IN_FLIGHT)
    load.pushers(IN_FLIGHT)
    load.push(WARM_UP_PUSHES, 0)
    before = peer.cpu_s()
    load.push(pushes, 0)
    return (peer.cpu_s() - before) / pushes * 1e6


def _fan(peer: Peer, load: Load, keys: int, fans: int) -> float:
    load.open(keys)
    load.pushers(1)
    for _ in range(WARM_UP_ROUNDS):
        load.fan(keys)
    before = peer.cpu_s()
    for _ in range(fans):
        load.fan(keys)
    return (peer.cpu_s() - before) / keys / fans * 1e6


def _figures(costs: dict[str, list[Costs]]) -> list[Figure]:
    told = [
        ("resident, idle WebSocket", "B/conn"),
        ("CPU to connect", "us/conn"),
        ("CPU of a push to one, 64 in flight", "us"),
        ("CPU per message of a push to many", "us"),
    ]
    columns = {name: list(zip(*map(astuple, rounds), strict=True)) for name, rounds in costs.items()}
    return [
        figure(f"{what}: {name}", columns[name][index], unit)
        for index, (what, unit) in enumerate(told)
        for name in SERVERS
    ]


def run(count: int, keys: int, pushes: int, fans: int, rounds: int) -> bool:
    """Measure and tell; there are no targets to miss."""
    build()
    costs: dict[str, list[Costs]] = {name: [] for name in SERVERS}
    for _ in range(rounds):
        for name, results in costs.items():
            results.append(measure(name, count, keys, pushes, fans))
    return tell(f"next to another server: {count} idle subscribers; one push to {keys}", _figures(costs))


if __name__ == "__main__":
    parser = Parser(description="Memory and CPU next to those of nginx with nchan.")
    parser.add_argument("--count", type=int, default=15_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--pushes", type=int, default=20_000)
    parser.add_argument("--fans", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    run(arguments.count, arguments.keys, arguments.pushes, arguments.fans, arguments.rounds)
