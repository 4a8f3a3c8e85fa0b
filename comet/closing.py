"""Closes many connections without a storm of reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from comet.connection import Connection
from comet.protocol import CloseReason

STEP_S = 0.05


async def close_paced(
    connections: Sequence[Connection], reason: CloseReason, per_s: int, within_s: float
) -> None:
    """Close connections at a steady pace.

    Args:
        per_s: the pace; faster only when they would not be done within the time.

    Cancellation: those not yet reached stay open.
    """
    steps = max(1, int(within_s / STEP_S))
    at_once = max(1, int(per_s * STEP_S), -(-len(connections) // steps))
    for start in range(0, len(connections), at_once):
        if start:
            await asyncio.sleep(STEP_S)
        for connection in connections[start : start + at_once]:
            connection.close(reason)
