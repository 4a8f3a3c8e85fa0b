"""Tells a torn end of SQLite's write-ahead log from damage in its middle.

SQLite reads a log up to its first bad frame and silently ignores what
follows. After a crash that is the one transaction that was being written. If
more commits follow, what was lost had been answered.

Format: https://www.sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC_LITTLE, MAGIC_BIG = 0x377F0682, 0x377F0683
MANY = 1_000_000


def lost_commits(log: Path) -> int:
    """Count commits that SQLite will not see because a frame before or in them is bad.

    0 for a whole log; 1 for one with a torn end. A bad header hides everything;
    that counts as MANY unless nothing follows it: it is written and synced
    before the first frame.
    """
    with log.open("rb") as file:
        header = file.read(HEADER_BYTES)
        if log.stat().st_size <= HEADER_BYTES:
            return 0
        magic, _, page_bytes, _, *_ = struct.unpack(">8I", header)
        if magic not in (MAGIC_LITTLE, MAGIC_BIG) or page_bytes not in (2**n for n in range(9, 17)):
            return MANY
        order = "little" if magic == MAGIC_LITTLE else "big"
        state = _checksum(header[:24], (0, 0), order)
        if state != struct.unpack(">2I", header[24:]):
            return MANY
        salts = header[16:24]
        lost = 0
        is_good = True
        while len(frame := file.read(FRAME_HEADER_BYTES + page_bytes)) == FRAME_HEADER_BYTES + page_bytes:
            is_of_this_log = frame[8:16] == salts
            if is_good:
                state = _checksum(frame[:8], state, order)
                state = _checksum(frame[FRAME_HEADER_BYTES:], state, order)
                is_good = is_of_this_log and state == struct.unpack(">2I", frame[16:24])
            is_commit = frame[4:8] != b"\0\0\0\0"
            if not is_good and is_of_this_log and is_commit:
                lost += 1
    return lost


def _checksum(content: bytes, state: tuple[int, int], order: str) -> tuple[int, int]:
    words = array("I", content)
    if order != _native_order():
        words.byteswap()
    one, two = state
    pairs = iter(words)
    for word in pairs:
        one = (one + word + two) & 0xFFFFFFFF
        two = (two + next(pairs) + one) & 0xFFFFFFFF
    return one, two


def _native_order() -> str:
    return "little" if array("I", [1]).tobytes()[0] == 1 else "big"
