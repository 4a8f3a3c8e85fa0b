"""What happens to a message at its key's turn: given to the channel and to earlier owners, its push answered.

Functions on one key; the order between them is made in keyqueue.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.contracts.message import Outcome, SaveResult
from cluster.errors import ConflictError
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from comet.pushing.pushjob import PushJob
from comet.pushing.turns import PushTurn, QueueContext
from comet.subscribers.outgoing import Outgoing

# A message that is not stored is encoded once for all keys of a slice, if their servers' clocks
# do not differ by more than this: about the time that a slice takes.
SHARED_TICKS = TICKS_PER_SECOND // 1000

# Asking the class for a member is a call in Python, 0.1 us, three times a push.
_SAVED, _REPEATED, _CONFLICT = Outcome.SAVED, Outcome.REPEATED, Outcome.CONFLICT


def deliver_saved(
    context: QueueContext,
    key: Key,
    turns: Sequence[PushTurn],
    results: Sequence[SaveResult],
    filled: dict[Mid, int],
    *,
    was_in_doubt: bool,
) -> None:
    """Deliver what was saved, and answer its turns.

    Args:
        turns: what was saved, in the order of the results.
        filled: mids that fill_holes() has delivered already, and to how many connections.
        was_in_doubt: an answer was lost: that the repeat finds what the first
            attempt stored is no repeat of the caller's.
    """
    forwarder = context.forwarder
    for (job, index), result in zip(turns, results, strict=True):
        outcome = result.outcome
        if outcome is _CONFLICT:
            job.fail(index, ConflictError.code)
            continue
        push = job.push
        mid = result.mid
        online = filled.get(mid, 0)
        channel = context.hub.channel(key)
        is_repeat = outcome is _REPEATED
        if channel is not None and (mid > channel.cursor or not is_repeat):
            online = channel.deliver(Outgoing(mid, push.payload, push.expire_s > 0))
            context.metrics.deliveries.value += online
        if forwarder is not None and forwarder.is_active:
            prev = None if is_repeat else result.prev
            forwarder.forward(key, mid, push.payload, push.expire_s > 0, prev)
        job.succeed(index, mid, online, is_repeat and not was_in_doubt)


async def fill_holes(context: QueueContext, key: Key, results: Sequence[SaveResult]) -> dict[Mid, int]:
    """Deliver what another node saved before these results, or close the key's connections.

    Returns:
        What was delivered, and to how many connections.
    """
    filled: dict[Mid, int] = {}
    new = [r.mid for r in results if r.outcome is _SAVED]
    known = [r.mid for r in results if r.outcome is _REPEATED]
    # Up to the first new message; a batch that turned out to be stored is read itself.
    end = min(new) if new else Mid(max(known) + STEP)
    await context.filler.fill_or_close(key, end, filled)
    return filled


def has_hole(cursor: Mid, results: Sequence[SaveResult]) -> bool:
    """Whether something that the channel has not delivered lies before or between these results."""
    reached = cursor
    for result in results:
        if result.outcome is _SAVED:
            if result.prev > reached:
                return True
        elif result.outcome is _REPEATED and result.mid > reached:
            # Stored by a save whose answer was lost.
            return True
        reached = max(reached, result.mid)
    return False


def deliver_unsaved(
    context: QueueContext, job: PushJob, index: int, message: Outgoing, *, is_exact: bool = False
) -> None:
    """Deliver a message that is not stored, at its key's turn.

    Args:
        message: with a lower bound of the clocks of all store servers as its mid.
            Raised to that of the key's own server; and where the channel has sent
            that already the next free mid is taken. The store will settle above both.
        is_exact: the mid is of the key's own server, and is not to be raised to its clock.
    """
    key = job.push.keys[index]
    channel = context.hub.channel(key)
    forwarder = context.forwarder
    if channel is None:
        if forwarder is not None and forwarder.is_active:
            forwarder.forward_unsaved(key, context.clocks.now(key), message.payload)
        job.succeed(index, message.mid, 0)
    else:
        if context.clocks.has_several and not is_exact:
            bound = context.clocks.now(key)
            if bound > message.mid + SHARED_TICKS:
                message = Outgoing(bound, message.payload, False)
        if message.mid <= channel.cursor:
            message = Outgoing(Mid(channel.cursor + STEP), message.payload, False)
        if forwarder is not None and forwarder.is_active:
            forwarder.forward_unsaved(key, message.mid, message.payload)
        online = channel.deliver(message)
        context.metrics.deliveries.value += online
        job.succeed(index, message.mid, online)
