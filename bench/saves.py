"""Many saves at a time, as comet nodes ask for them: what the measurements of stores share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from cluster.contracts.message import SaveBatch, SaveItem, SaveReply
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MessageStore

PAYLOAD = b'{"event":"' + b"x" * 80 + b'"}'
EXPIRE_S = 600


async def save_many(
    store: MessageStore,
    keys: Sequence[Key],
    saves: int,
    in_flight: int,
    name: str = "",
    *,
    has_ids: bool = True,
) -> None:
    """Save one message a batch to the keys in turn, always so many at a time.

    Args:
        name: makes the push ids differ from those of another call.
        has_ids: as in a cluster; in one process pushes have none.
    """
    deadline = Mid(await store.clock() + 600 * TICKS_PER_SECOND)
    done = asyncio.get_running_loop().create_future()
    left, flying = saves, 0

    def save_next(finished: asyncio.Future[SaveReply] | None) -> None:
        nonlocal left, flying
        if finished is not None:
            flying -= 1
            if (fault := finished.exception()) is not None and not done.done():
                done.set_exception(fault)
        if left == 0:
            if flying == 0 and not done.done():
                done.set_result(None)
            return
        left -= 1
        flying += 1
        # As web nodes make them: the time first.
        push_id = f"{time.time_ns():016x}{name}{left:016x}" if has_ids else ""
        item = SaveItem(push_id, PAYLOAD, EXPIRE_S)
        store.save(SaveBatch(keys[left % len(keys)], [item], Mid(0), deadline)).add_done_callback(save_next)

    for _ in range(min(in_flight, saves)):
        save_next(None)
    await done
