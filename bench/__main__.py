"""All measurements, one after the other; takes about three minutes."""

from __future__ import annotations

import sys

from bench import connections, fanout, push

if __name__ == "__main__":
    results = [
        connections.run(count=15_000, rounds=3),
        fanout.run(keys=10_000, rounds=15, lag_pushes=50),
        push.run(pushes=20_000, rounds=5),
    ]
    sys.exit(0 if all(results) else 1)
