"""Frames of the RPC protocol: bytes ⇄ frames, with the size checked before anything is kept.

::

    frame      = length:u32  body            big-endian; length 0 = a ping, no answer
    handshake  = msgpack array               see handshake.py
    later      = kind:u8  call:u64  rest
      REQUEST    rest = method:u16  timeout_ms:u32  msgpack array of arguments
      REPLY      rest = msgpack result
      FAULT      rest = msgpack Fault        see faults.py
      GOODBYE    call = 0, no rest           the server finishes its calls and takes no new ones

A deadline crosses the wire as the time that is left, so clocks need not agree.
"""

from __future__ import annotations

import struct

from cluster.errors import RemoteProtocolError

REQUEST = 1
REPLY = 2
FAULT = 3
GOODBYE = 4

LENGTH = struct.Struct(">I")
# What every body starts with after the handshake: kind, call.
HEAD = struct.Struct(">BQ")
# A request's: kind, call, method, timeout_ms.
REQUEST_HEAD = struct.Struct(">BQHI")

PING = LENGTH.pack(0)
MAX_TIMEOUT_MS = 2**32 - 1

# The same with the length before it: packed for every call, so in one go. What is asked for most uses
# them as they are, see request_head() and frame_head().
FRAME_HEAD = struct.Struct(">IBQ")
REQUEST_FRAME_HEAD = struct.Struct(">IBQHI")


def request_head(payload_bytes: int, call: int, method: int, timeout_ms: int) -> bytes:
    """Start of a REQUEST frame; the encoded arguments follow it.

    Args:
        timeout_ms: more than MAX_TIMEOUT_MS is taken for that.
    """
    if timeout_ms > MAX_TIMEOUT_MS:
        timeout_ms = MAX_TIMEOUT_MS
    # 15 = REQUEST_HEAD.size
    return REQUEST_FRAME_HEAD.pack(payload_bytes + 15, REQUEST, call, method, timeout_ms)


def frame_head(payload_bytes: int, kind: int, call: int) -> bytes:
    """Start of any other frame; its payload follows it."""
    # 9 = HEAD.size
    return FRAME_HEAD.pack(payload_bytes + 9, kind, call)


def timeout_ms(timeout_s: float) -> int:
    """Time left as it crosses the wire: rounded up, 0 when none is left."""
    return int(timeout_s * 1000) + 1 if timeout_s > 0 else 0


class FrameReader:
    """Cuts the bytes of one connection into frames."""

    __slots__ = ("_buffer", "_needed", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        # Largest body that is accepted; raised once the peer is known.
        self.limit_bytes = limit_bytes
        # Start of a frame that is not complete. Holds only what has arrived,
        # never what a length announces.
        self._buffer = bytearray()
        # Bytes that the buffer must hold before looking at it is worth while.
        self._needed = LENGTH.size

    @property
    def buffered_bytes(self) -> int:
        """Bytes kept of an incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; return the bodies that are complete, pings left out.

        Raises:
            RemoteProtocolError: a frame is announced that is over the limit;
                nothing more can be read from this connection.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        unpack, limit = LENGTH.unpack_from, self.limit_bytes
        size = len(data)
        start = 0
        needed = LENGTH.size
        while size - start >= 4:
            (length,) = unpack(data, start)
            if length > limit:
                raise RemoteProtocolError(f"a frame of {length} bytes is announced, the limit is {limit}")
            end = start + 4 + length
            if end > size:
                needed = end - start
                break
            if length:
                frames.append(data[start + 4 : end])
            start = end
        self._needed = needed
        if start < size:
            self._buffer += data[start:]
        return frames
