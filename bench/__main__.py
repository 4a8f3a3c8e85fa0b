"""The measurements that have targets, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import cluster, connections, fanout, push, ring
from encke.commands.arguments import Parser

MEASUREMENTS: dict[str, Callable[[], bool]] = {
    "connections": lambda: connections.run(count=15_000, rounds=3),
    "fanout": lambda: fanout.run(keys=10_000, rounds=15, lag_pushes=16),
    "push": lambda: push.run(pushes=4_000, rounds=25),
    "cluster": lambda: cluster.run(pushes=4_000, keys=10_000, rounds=25, failovers=3),
    "ring": lambda: ring.run(rounds=5),
}


def main() -> int:
    """Measure; 1 when a target was missed."""
    parser = Parser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"only these: {', '.join(MEASUREMENTS)}; for options of one, python -m bench.NAME --help",
    )
    names = parser.parse_args().names or list(MEASUREMENTS)
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}")
    # All of them, also after one that missed its target.
    results = [MEASUREMENTS[name]() for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
