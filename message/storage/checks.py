"""What no store accepts, whatever its backend. The caller turns the text into a RequestError."""

from __future__ import annotations

from cluster.contracts.message import MAX_INCARNATION_BYTES, MAX_PUSH_ID_BYTES, SaveBatch
from cluster.model import key_fault
from message.storage.base import MAX_DEVICE_BYTES


def batch_fault(batch: SaveBatch) -> str | None:
    """Say why a batch can never be stored, or None."""
    if fault := key_fault(batch.key):
        return fault
    if batch.incarnation and (fault := incarnation_fault(batch.incarnation)):
        return fault
    for item in batch.items:
        if not 0 < _utf8_size(item.push_id) <= MAX_PUSH_ID_BYTES:
            return f"a push id must have 1 to {MAX_PUSH_ID_BYTES} bytes of UTF-8"
        if item.expire_s < 0:
            return "expire_s must not be negative"
    return None


def device_fault(device: str) -> str | None:
    """Say what is wrong with the name of a device, or None."""
    is_good = 0 <= _utf8_size(device) <= MAX_DEVICE_BYTES
    return None if is_good else f"a device must have at most {MAX_DEVICE_BYTES} bytes of UTF-8"


def incarnation_fault(incarnation: str) -> str | None:
    """Say what is wrong with the name of an incarnation, or None."""
    if 0 < len(incarnation) <= MAX_INCARNATION_BYTES and incarnation.isascii() and incarnation.isprintable():
        return None
    return f"an incarnation must have 1 to {MAX_INCARNATION_BYTES} printable ASCII characters"


def _utf8_size(text: str) -> int:
    """Bytes of a text in UTF-8; -1 when it cannot be encoded."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1
