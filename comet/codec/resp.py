"""What a raw TCP subscriber sends: one subscribe command, then heartbeats and acknowledgements.

The command is an array of bulk strings: ``*N``, then N times ``$LEN`` and LEN
bytes of data, each part ended by CRLF. The functions look at all bytes that
have arrived so far and keep nothing, so that how the bytes were split cannot
matter. Nothing is allocated from an announced length.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec

from cluster.model import Mid
from comet.codec.protocol import ClientVersion, Subscribe, client_version, parse_subscribe

# A whole command; a key takes up to 512 bytes of it.
MAX_COMMAND_BYTES = 4096
# A line that announces a number. Signs and leading zeros are let through as
# the original does, so a line is bounded by itself.
MAX_LINE_BYTES = 32
MIN_ARGUMENTS = 3
MAX_ARGUMENTS = 7
# More only from clients of version 2 (resume mid, device).
MAX_ARGUMENTS_OLD = 5

_NUMBER = re.compile(rb"\+?[0-9]+")
_NUMBER_BEGUN = re.compile(rb"\+?[0-9]*\r?")
# A run of heartbeats, or one acknowledgement.
_INPUT = re.compile(rb"(h+)|a([0-9]{1,19})\r\n")
_INPUT_BEGUN = re.compile(rb"a([0-9]{1,19}\r?)?")


class Fault(Enum):
    """Stands for bytes that can never become a command."""

    MALFORMED = auto()


class Command(msgspec.Struct, frozen=True, gc=False):
    """A complete array."""

    # None when they are not UTF-8.
    arguments: list[str] | None
    # Bytes that it took; what follows belongs to the live connection.
    size: int


def read_command(data: bytes) -> Command | Fault | None:
    """Read the command at the beginning of data.

    Returns:
        None while more bytes are needed.
    """
    return _read_usual(data) or _read_any(data)


def _read_usual(data: bytes) -> Command | None:
    """Read a command alone in data, as nearly all clients write it: in 1.3 instead of 5 us."""
    if not data.isascii() or len(data) > MAX_COMMAND_BYTES:
        return None
    parts = data.decode("ascii").split("\r\n")
    count = len(parts) // 2 - 1
    if not 1 <= count <= MAX_ARGUMENTS or parts[0] != f"*{count}" or parts[-1]:
        return None
    arguments = parts[2::2]
    if parts[1:-1:2] != [f"${len(argument)}" for argument in arguments]:
        return None
    return Command(arguments, len(data))


def _read_any(data: bytes) -> Command | Fault | None:
    count_line = _read_number(data, 0, b"*")
    if not isinstance(count_line, tuple):
        return count_line
    count, position = count_line
    if not 1 <= count <= MAX_ARGUMENTS:
        return Fault.MALFORMED
    arguments: list[bytes] = []
    for _ in range(count):
        length_line = _read_number(data, position, b"$")
        if not isinstance(length_line, tuple):
            return length_line
        length, start = length_line
        end = start + length
        position = end + 2
        if position > MAX_COMMAND_BYTES:
            return Fault.MALFORMED
        # A wrong byte behind the data is seen as soon as it is there.
        if not b"\r\n".startswith(data[end:position]):
            return Fault.MALFORMED
        if len(data) < position:
            return None
        arguments.append(data[start:end])
    try:
        return Command([argument.decode() for argument in arguments], position)
    except UnicodeDecodeError:
        return Command(None, position)


def _read_number(data: bytes, start: int, prefix: bytes) -> tuple[int, int] | Fault | None:
    """Read the line `<prefix>NUMBER` at start: the number and where the next part begins."""
    end = data.find(b"\r\n", start, start + MAX_LINE_BYTES)
    if end < 0:
        if len(data) - start >= MAX_LINE_BYTES:
            return Fault.MALFORMED
        # Other protocols (HTTP, TLS, bare line feeds) are told apart without waiting for a line end.
        is_begun = len(data) <= start or (
            data.startswith(prefix, start) and _NUMBER_BEGUN.fullmatch(data, start + 1) is not None
        )
        return None if is_begun else Fault.MALFORMED
    if not data.startswith(prefix, start) or _NUMBER.fullmatch(data, start + 1, end) is None:
        return Fault.MALFORMED
    return int(data[start + 1 : end]), end + 2


def read_subscribe(arguments: list[str] | None) -> Subscribe | None:
    """Check a command: ``sub key heartbeat [token [version [mid [device]]]]``.

    Returns:
        None when it is not a good subscription: the answer is Refusal.PARAMETER.
    """
    if arguments is None or len(arguments) < MIN_ARGUMENTS or arguments[0] != "sub":
        return None
    if len(arguments) > MAX_ARGUMENTS_OLD and client_version(arguments[4]) < ClientVersion.TWO:
        return None
    return parse_subscribe(*arguments[1:])


class Input(msgspec.Struct, frozen=True, gc=False):
    """What a live subscriber has said."""

    heartbeats: int
    # The highest of its acknowledgements; one above what was sent shows in it.
    acknowledged: Mid | None
    # How many single things those were; a run of heartbeats is one per 64.
    frames: int
    # The beginning of an acknowledgement, to be put before what comes next.
    rest: bytes
    # Something else follows: the connection ends.
    is_broken: bool


def read_input(data: bytes, version: ClientVersion) -> Input:
    """Read what follows the command: heartbeats, and acknowledgements of version 2."""
    heartbeats = frames = position = 0
    acknowledged: Mid | None = None
    while match := _INPUT.match(data, position):
        begin, position = match.span()
        digits = match.group(2)
        if digits is None:
            heartbeats += position - begin
            frames += 1 + (position - begin) // 64
        elif version < ClientVersion.TWO:
            return Input(heartbeats, acknowledged, frames, b"", is_broken=True)
        else:
            frames += 1
            acknowledged = Mid(max(int(digits), acknowledged or 0))
    rest = data[position:] if position else data
    is_begun = not rest or (version >= ClientVersion.TWO and _INPUT_BEGUN.fullmatch(rest) is not None)
    return Input(heartbeats, acknowledged, frames, rest if is_begun else b"", is_broken=not is_begun)
