"""WebSocket frames as a client may send them, right or wrong on purpose."""

from __future__ import annotations

import os
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(
    opcode: int,
    payload: bytes,
    *,
    is_final: bool = True,
    rsv: int = 0,
    is_masked: bool = True,
    announced: int | None = None,
) -> bytes:
    """A client frame.

    Args:
        announced: the length that it claims, if another than its own.
    """
    size = len(payload) if announced is None else announced
    head = bytes([is_final << 7 | rsv << 4 | opcode])
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 2**16:
        head += struct.pack("!BH", mask_bit | 126, size)
    else:
        head += struct.pack("!BQ", mask_bit | 127, size)
    if not is_masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
