"""What no store accepts, whatever its backend, and how it is refused."""

from __future__ import annotations

from cluster.contracts.message import MAX_INCARNATION_BYTES, SaveBatch, item_fault
from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    NotOwnerError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from cluster.model import MAX_KEY_BYTES, Key, key_fault, utf8_size
from message.storage.limits import StoreLimits
from message.storage.rules import MAX_DEVICE_BYTES


def save_refusal(
    batch: SaveBatch, payload_bytes: int, limits: StoreLimits, queued: int, queued_bytes: int
) -> EnckeError | None:
    """Say why an open store does not take a save, or None.

    Args:
        payload_bytes: of all items of the batch.
        queued: saves and changes that wait already.
        queued_bytes: payload bytes of those.
    """
    if fault := batch_fault(batch):
        return RequestError(fault)
    if queued >= limits.max_queued_saves:
        return OverloadedError("too many saves wait for the store")
    # A batch over the limit by itself is taken when it is alone.
    if queued and queued_bytes + payload_bytes > limits.max_queued_bytes:
        return OverloadedError("too many bytes wait for the store")
    return None


def not_open() -> UnavailableError:
    """What is answered before start() and after stop()."""
    return UnavailableError("the store is not open")


def fenced() -> NotOwnerError:
    """What a save of a fenced incarnation is answered."""
    return NotOwnerError("the node that saves has lost its keys")


def too_late() -> DeadlinePassedError:
    """What a save after its deadline is answered, unless it is the repeat of one that was in time."""
    return DeadlinePassedError("the deadline of the save has passed")


def too_far(limit_s: int) -> RequestError:
    """What a save with a deadline over the limit is answered (StoreLimits.max_deadline_s)."""
    return RequestError(f"the deadline of the save is more than {limit_s} s ahead of the store's clock")


def batch_fault(batch: SaveBatch) -> str | None:
    """Say why a batch can never be stored, or None."""
    # What nearly all are is seen here, without the calls that tell what is wrong with the others: every
    # save is looked at.
    key, incarnation = batch.key, batch.incarnation
    is_plain = 0 < len(key) <= MAX_KEY_BYTES and key.isascii() and key.isprintable()
    if not is_plain and (fault := key_fault(key)):
        return fault
    if incarnation and (fault := _incarnation_fault(incarnation)):
        return fault
    for item in batch.items:
        if fault := item_fault(item):
            return fault
    return None


def require_key(key: Key) -> None:
    """Go on only with a key: what is none would fail everything that shares its transaction.

    Raises:
        RequestError: it is none.
    """
    if fault := key_fault(key):
        raise RequestError(fault)


def require_device(device: str) -> None:
    """Go on only with what a device can be called.

    Raises:
        RequestError: none can.
    """
    if not 0 <= utf8_size(device) <= MAX_DEVICE_BYTES:
        raise RequestError(f"a device must have at most {MAX_DEVICE_BYTES} bytes of UTF-8")


def require_incarnation(incarnation: str) -> None:
    """Go on only with what an incarnation can be called.

    Raises:
        RequestError: none can.
    """
    if fault := _incarnation_fault(incarnation):
        raise RequestError(fault)


def _incarnation_fault(incarnation: str) -> str | None:
    """Say what is wrong with the name of an incarnation, or None."""
    if 0 < len(incarnation) <= MAX_INCARNATION_BYTES and incarnation.isascii() and incarnation.isprintable():
        return None
    return f"an incarnation must have 1 to {MAX_INCARNATION_BYTES} printable ASCII characters"
