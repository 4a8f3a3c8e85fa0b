"""Closes many connections without a storm of reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from comet.codec.protocol import CloseReason
from comet.subscribers.connection import Connection

STEP_S = 0.05


async def close_paced(
    connections: Sequence[Connection], reason: CloseReason, per_s: int, within_s: float
) -> None:
    """Close connections at a steady pace, the first at once.

    Args:
        per_s: the pace; faster only when they would not be done within the time.
            By the clock, so that a loop that is busy does not make it slower.

    Cancellation: those not yet reached stay open.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    is_hasty = within_s <= STEP_S
    pace = per_s if is_hasty else max(per_s, len(connections) / (within_s - STEP_S))
    closed = 0
    while closed < len(connections):
        if closed:
            await asyncio.sleep(STEP_S)
        due = len(connections) if is_hasty else 1 + int((loop.time() - began) * pace)
        for connection in connections[closed:due]:
            connection.close(reason)
        closed = due
