"""What a push costs each process of a cluster, and how long its keys are without a node that fails.

Web, comet and message node are processes of their own, with Redis and
ZooKeeper, on loopback. 64 keep-alive connections push to 64 keys with a
subscriber each, saved and unsaved in turn, as in bench/push.py; one push goes to
10,000 keys on two comet nodes, as in bench/fanout.py. CPU is told of each
process; the targets are for all of ours together, without Redis.
Run: python -m bench.cluster [push] [fanout] [failover] [--rounds N] ...
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from bench import failover
from bench.clusters import Cluster
from bench.programs import Baseline, Load, Wire, build
from bench.report import REFERENCE_CONNECTIONS, Figure, figure, in_sends, tell
from encke.commands.arguments import Parser

MAX_UNSAVED_US = 60.0
MAX_SAVED_US = 110.0

IN_FLIGHT = 64
EXPIRE_S = 600
WARM_UP_PUSHES = 2_000
WIRE: Wire = "ws"
# What is told, but is not ours.
OTHERS = ("Redis",)

# CPU us per operation by process, a value a round.
Costs = dict[str, list[float]]


def measure_push(pushes: int, rounds: int, appendfsync: str) -> list[Figure]:
    """Single pushes to one comet node, unsaved and saved in turn."""
    unsaved: Costs = defaultdict(list)
    saved: Costs = defaultdict(list)
    rates: list[float] = []
    sent: list[float] = []
    with (
        Cluster(1, appendfsync) as cluster,
        Baseline(WIRE) as baseline,
        Load(WIRE, cluster.nodes["comet-1"].ports[WIRE], cluster.web.ports["admin"]) as load,
        Load(WIRE, baseline.port) as baseline_load,
    ):
        load.open(IN_FLIGHT)
        load.pushers(IN_FLIGHT)
        baseline_load.open(REFERENCE_CONNECTIONS)
        load.push(WARM_UP_PUSHES, 0)
        load.push(WARM_UP_PUSHES, EXPIRE_S)
        for _ in range(rounds):
            sent.append(baseline.send(baseline_load, REFERENCE_CONNECTIONS))
            _cost(cluster, lambda: load.push(pushes, 0), pushes, unsaved)
            answer = _cost(cluster, lambda: load.push(pushes, EXPIRE_S), pushes, saved)
            rates.append(pushes / answer["seconds"])
    return [
        *_figures("expire 0", unsaved),
        *_totals("expire 0", unsaved, sent, MAX_UNSAVED_US),
        *_figures(f"expire {EXPIRE_S}", saved),
        *_totals(f"expire {EXPIRE_S}", saved, sent, MAX_SAVED_US),
        figure(f"expire {EXPIRE_S}: pushes a second", rates, "1/s"),
        figure(f"C loop of send(), {REFERENCE_CONNECTIONS} connections", sent, "us"),
    ]


def measure_fanout(keys: int, rounds: int) -> list[Figure]:
    """One push to many keys on two comet nodes, expire 0."""
    costs: Costs = defaultdict(list)
    last_ms: list[float] = []
    sent: list[float] = []
    with (
        Cluster(2) as cluster,
        Baseline(WIRE) as baseline,
        Load(WIRE, 0, cluster.web.ports["admin"]) as load,
        Load(WIRE, baseline.port) as baseline_load,
        tempfile.TemporaryDirectory(prefix="encke-bench-") as directory,
    ):
        ports = Path(directory) / "ports"
        nodes = cluster.nodes
        ports.write_text("\n".join(str(nodes[cluster.owner(f"k{n}")].ports[WIRE]) for n in range(keys)))
        load.ports(ports)
        load.open(keys)
        load.pushers(1)
        baseline_load.open(keys)
        load.fan(keys)
        for _ in range(rounds):
            sent.append(baseline.send(baseline_load, keys))
            answer = _cost(cluster, lambda: load.fan(keys), keys, costs)
            last_ms.append(answer["last_ms"])
    return [
        *_figures("expire 0", costs),
        figure("expire 0: CPU of our processes", _ours(costs), "us"),
        figure("expire 0: push to last delivery", last_ms, "ms"),
        figure("C loop of send(), per message", sent, "us"),
    ]


def _cost(
    cluster: Cluster, work: Callable[[], dict[str, float]], operations: int, costs: Costs
) -> dict[str, float]:
    """Do something and note what it has cost each process."""
    before = cluster.cpu_s()
    answer = work()
    for name, after in cluster.cpu_s().items():
        costs[name].append((after - before[name]) / operations * 1e6)
    return answer


def _figures(title: str, costs: Costs) -> list[Figure]:
    return [figure(f"{title}: CPU of {name}", values, "us") for name, values in costs.items()]


def _totals(title: str, costs: Costs, sent: list[float], target: float) -> list[Figure]:
    name, ours = f"{title}: CPU of our processes", _ours(costs)
    return [figure(name, ours, "us", target), in_sends(name, ours, sent, target)]


def _ours(costs: Costs) -> list[float]:
    """What all our processes have taken together, a value a round."""
    return [
        sum(values)
        for values in zip(*(values for name, values in costs.items() if name not in OTHERS), strict=True)
    ]


def run_push(pushes: int, rounds: int, appendfsync: str = "always") -> bool:
    """Measure single pushes and tell; whether the targets are met."""
    build()
    title = (
        f"single pushes through a cluster, {IN_FLIGHT} in flight, Redis appendfsync {appendfsync}, per push"
    )
    return tell(title, measure_push(pushes, rounds, appendfsync))


def run_fanout(keys: int, rounds: int) -> bool:
    """Measure a push to many keys and tell."""
    build()
    title = f"one push to {keys} keys on two comet nodes, per delivered message"
    return tell(title, measure_fanout(keys, rounds))


def run(pushes: int, keys: int, rounds: int, failovers: int) -> bool:
    """Everything; whether the targets are met."""
    results = [run_push(pushes, rounds), run_fanout(keys, rounds), failover.run(failovers)]
    return all(results)


def main() -> int:
    """Measure what is asked for; 1 when a target was missed."""
    parser = Parser(description="CPU of pushes through a cluster; time without a node.")
    parser.add_argument("names", nargs="*", metavar="push|fanout|failover", help="only these")
    parser.add_argument("--pushes", type=int, default=4_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--appendfsync", choices=("always", "everysec", "no"), default="always")
    arguments = parser.parse_args()
    measurements: dict[str, Callable[[], bool]] = {
        "push": lambda: run_push(arguments.pushes, arguments.rounds, arguments.appendfsync),
        "fanout": lambda: run_fanout(arguments.keys, arguments.rounds),
        "failover": lambda: failover.run(arguments.failovers),
    }
    names = arguments.names or list(measurements)
    if unknown := [name for name in names if name not in measurements]:
        parser.error(f"no such measurement: {', '.join(unknown)}")
    results = [measurements[name]() for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
