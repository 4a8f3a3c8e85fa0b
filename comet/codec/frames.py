"""RFC 6455 frames, the server's side: bytes in, events out, and the frames that a server sends.

No extension is ever negotiated, so reserved bits must be 0. Knows nothing of
subscriptions; the Autobahn cases run against this codec through an echo server
of the tests.
"""

from __future__ import annotations

import codecs
from enum import IntEnum

import msgspec


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Codes with which a connection fails (RFC 6455, 7.4.1)."""

    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    TOO_BIG = 1009


MAX_CONTROL_BYTES = 125
# Empty fragments have no bytes that the size limit could count.
MAX_FRAGMENTS = 1024
# Codes that may stand in a close frame below 3000: RFC 6455, 7.4.1, and the IANA registry.
_CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})


class FrameMessage(msgspec.Struct, frozen=True, gc=False):
    """A complete message; that of a text is valid UTF-8."""

    is_text: bool
    payload: bytes


class Ping(msgspec.Struct, frozen=True, gc=False):
    """To be answered with pong_frame(payload)."""

    payload: bytes


class Close(msgspec.Struct, frozen=True, gc=False):
    """The peer wants to end; None = it gave no code. Nothing follows."""

    code: int | None


class FrameFailure(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the protocol or a limit. Nothing follows."""

    code: CloseCode
    text: str


Event = FrameMessage | Ping | Close | FrameFailure


class _BrokenError(Exception):
    """Leaves the steps of FrameDecoder.feed(); becomes a FrameFailure there."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.failure = FrameFailure(code, text)


class FrameDecoder:
    """Turns the bytes of one client into events.

    Holds at most one unfinished message of max_message_bytes; a larger one
    fails at the header that announces it.
    """

    __slots__ = (
        "_buffer",
        "_fragments",
        "_is_done",
        "_is_final",
        "_is_text",
        "_mask",
        "_max_message_bytes",
        "_message",
        "_text_check",
        "_wanted",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        # Bytes that no step has taken yet: the beginning of a header or a control frame.
        self._buffer = b""
        # Payload of the message that is arriving, unmasked; None between messages.
        self._message: bytearray | None = None
        self._is_text = False
        # Frames of that message so far.
        self._fragments = 0
        # Checks a text that arrives in pieces, so that it fails at its first wrong byte.
        self._text_check: codecs.IncrementalDecoder | None = None
        # The data frame whose payload is arriving: bytes still to come (-1 = no
        # frame), its mask turned to the next byte, whether it ends the message.
        self._wanted = -1
        self._mask = b""
        self._is_final = False
        # A Close or FrameFailure was given out: what follows is ignored.
        self._is_done = False

    @property
    def is_idle(self) -> bool:
        """Whether a fresh decoder would go on the same way: nothing is unfinished."""
        return not self._buffer and self._message is None and not self._is_done

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return what they complete, in order."""
        events: list[Event] = []
        if self._is_done:
            return events
        buffer = self._buffer + data if self._buffer else data
        position = 0
        try:
            while not self._is_done:
                take = self._take_frame if self._wanted < 0 else self._take_payload
                taken = take(buffer, position, events)
                if taken < 0:
                    break
                position = taken
        except _BrokenError as broken:
            events.append(broken.failure)
            self._is_done = True
        if self._is_done:
            self._buffer, self._message = b"", None
        else:
            self._buffer = buffer[position:] if position else buffer
        return events

    def _take_frame(self, buffer: bytes, position: int, events: list[Event]) -> int:
        """Take a data frame's header or a whole control frame; the position behind it, -1 = incomplete."""
        if len(buffer) - position < 2:
            return -1
        first, second = buffer[position], buffer[position + 1]
        if first & 0x70:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if second < 0x80:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "frame is not masked")
        opcode = first & 0x0F
        if opcode >= Opcode.CLOSE:
            return self._take_control(buffer, position, events)
        if opcode > Opcode.BINARY:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "reserved opcode")
        if (opcode == Opcode.CONTINUATION) != (self._message is not None):
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "fragments out of order")
        length, start = _read_length(buffer, position)
        if start < 0:
            return -1
        if length + (len(self._message) if self._message is not None else 0) > self._max_message_bytes:
            raise _BrokenError(CloseCode.TOO_BIG, "message too big")
        if len(buffer) < start + 4:
            return -1
        self._begin_frame(opcode, first >= 0x80, length, buffer[start : start + 4])
        return start + 4

    def _begin_frame(self, opcode: int, is_final: bool, length: int, mask: bytes) -> None:
        if self._message is None:
            self._message = bytearray()
            self._is_text = opcode == Opcode.TEXT
            self._fragments = 0
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS:
            raise _BrokenError(CloseCode.TOO_BIG, "too many fragments")
        self._wanted = length
        self._mask = mask
        self._is_final = is_final

    def _take_payload(self, buffer: bytes, position: int, events: list[Event]) -> int:
        """Take what has arrived of a data frame's payload; the position behind it, -1 = nothing has."""
        masked = buffer[position : position + self._wanted]
        if self._wanted and not masked:
            return -1
        message = self._message
        assert message is not None
        part = unmask(masked, self._mask)
        message += part
        self._wanted -= len(part)
        is_complete = self._is_final and not self._wanted
        if self._is_text:
            self._check_text(part, is_complete)
        if is_complete:
            events.append(FrameMessage(self._is_text, bytes(message)))
            self._message = self._text_check = None
        if self._wanted:
            turned = len(part) % 4
            self._mask = self._mask[turned:] + self._mask[:turned]
        else:
            self._wanted = -1
        return position + len(part)

    def _check_text(self, part: bytes, is_complete: bool) -> None:
        try:
            if self._text_check is not None:
                self._text_check.decode(part, is_complete)
            elif is_complete:
                # The usual case: it came in one piece. `part` is all of it, because
                # any earlier part would have made a checker.
                part.decode()
            else:
                self._text_check = codecs.getincrementaldecoder("utf-8")()
                self._text_check.decode(part)
        except UnicodeDecodeError:
            raise _BrokenError(CloseCode.INVALID_TEXT, "text is not valid UTF-8") from None

    def _take_control(self, buffer: bytes, position: int, events: list[Event]) -> int:
        opcode, length = buffer[position] & 0x0F, buffer[position + 1] & 0x7F
        if opcode > Opcode.PONG:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "reserved opcode")
        if buffer[position] < 0x80 or length > MAX_CONTROL_BYTES:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "control frame is fragmented or too long")
        start = position + 6
        end = start + length
        if len(buffer) < end:
            return -1
        payload = unmask(buffer[start:end], buffer[position + 2 : start])
        if opcode == Opcode.PING:
            events.append(Ping(payload))
        elif opcode == Opcode.CLOSE:
            events.append(_read_close(payload))
            self._is_done = True
        # A pong needs no answer, asked for or not.
        return end


def _read_length(buffer: bytes, position: int) -> tuple[int, int]:
    """Payload length of the frame at position, and where its mask begins (-1 = incomplete)."""
    length = buffer[position + 1] & 0x7F
    start = position + 2
    if length < 126:
        return length, start
    size = 2 if length == 126 else 8
    if len(buffer) < start + size:
        return 0, -1
    length = int.from_bytes(buffer[start : start + size], "big")
    if length < (126 if size == 2 else 0x10000) or length >> 63:
        raise _BrokenError(CloseCode.PROTOCOL_ERROR, "length is not in its shortest form")
    return length, start + size


def _read_close(payload: bytes) -> Close | FrameFailure:
    if not payload:
        return Close(None)
    code = int.from_bytes(payload[:2], "big")
    # A single byte reads as a code below 256.
    if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
        return FrameFailure(CloseCode.PROTOCOL_ERROR, "invalid close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return FrameFailure(CloseCode.INVALID_TEXT, "close reason is not valid UTF-8")
    return Close(code)


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR data with the mask repeated (5 us for 64 KiB as one big integer)."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def data_frame(opcode: Opcode, payload: bytes) -> bytes:
    """A whole message in one frame."""
    size = len(payload)
    first = 0x80 | opcode
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 0x10000:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def text_frame(payload: bytes) -> bytes:
    """A text message; the caller has seen to its being UTF-8."""
    size = len(payload)
    if size < 126:
        # As data_frame() would, which every delivery would call.
        return b"\x81%c%b" % (size, payload)
    return data_frame(Opcode.TEXT, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping."""
    return b"\x8a%c%b" % (len(payload), payload)


def close_frame(code: int | None, text: str = "") -> bytes:
    """A close frame, empty without a code; the text must be short (123 bytes)."""
    if code is None:
        return b"\x88\x00"
    payload = code.to_bytes(2, "big") + text.encode()
    return b"\x88%c%b" % (len(payload), payload)
