"""What the ring costs: building it for a new snapshot, and asking it for the owner of a key.

Run: python -m bench.ring [--rounds N]
"""

from __future__ import annotations

import sys
import time

from bench.report import figure, tell
from cluster.model import Key, NodeName
from cluster.ring import Ring
from encke.commands.arguments import Parser

NODES = (3, 100, 1_000)
LOOKUPS = 20_000


def run(rounds: int) -> bool:
    """Measure and tell. No targets: a ring is built once for each change, off the path of pushes."""
    keys = [Key(f"user:{number:08d}") for number in range(LOOKUPS)]
    figures = []
    for count in NODES:
        weights = {NodeName(f"comet-{number}"): 1 for number in range(count)}
        built_ms, asked_us = [], []
        for _ in range(rounds):
            began = time.process_time()
            ring = Ring(weights)
            built = time.process_time()
            for key in keys:
                ring.owner(key)
            built_ms.append((built - began) * 1e3)
            asked_us.append((time.process_time() - built) / LOOKUPS * 1e6)
        figures += [
            figure(f"{count} nodes: build", built_ms, "ms"),
            figure(f"{count} nodes: owner of a key", asked_us, "us"),
        ]
    return tell("the ring, CPU", figures)


if __name__ == "__main__":
    parser = Parser(description="CPU of building and asking the ring.")
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(0 if run(parser.parse_args().rounds) else 1)
