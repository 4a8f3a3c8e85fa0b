"""Standard input as a stream of pushes: one JSON object a line (docs/http-api.md, the stream)."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import BinaryIO

import msgspec

from encke.client import Push

MAX_LINE_BYTES = 64 * 1024 * 1024


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    msg: msgspec.Raw
    key: str | None = None
    keys: list[str] | None = None
    expire: int | None = None
    id: str = ""


def parse_push(line: bytes, expire_s: int) -> Push:
    """Read one line.

    Args:
        expire_s: where the line does not say.

    Raises:
        ValueError: says what is wrong with it.
    """
    fields = msgspec.json.decode(line, type=_Line)
    if (fields.key is None) == (fields.keys is None):
        raise ValueError('it needs either "key" or "keys"')
    keys = fields.key if fields.key is not None else fields.keys or []
    expire_s = expire_s if fields.expire is None else fields.expire
    push = Push(keys, fields.msg, expire_s, fields.id)
    # A bad key would end the whole stream later.
    push.encode("")
    return push


async def read_pushes(file: BinaryIO, expire_s: int, faults: list[str]) -> AsyncIterator[Push]:
    """Yield the pushes of a file's lines, as they come; a bad line is told on stderr and skipped.

    Args:
        faults: bad lines are added here, for the caller to count.
    """
    number = 0
    async for line in _read_lines(file):
        number += 1
        if not line.strip():
            continue
        try:
            push = parse_push(line, expire_s)
        except ValueError as error:
            faults.append(f"line {number} is no push: {error}")
            print(f"encke: {faults[-1]}", file=sys.stderr, flush=True)
            continue
        yield push


async def _read_lines(file: BinaryIO) -> AsyncIterator[bytes]:
    """Lines without blocking the loop; plain files never make anyone wait."""
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode) or mode == 0 or _is_null(file):
        for line in file:
            yield line
            # The loop gets its turn: a long file must not keep answers from being read.
            await asyncio.sleep(0)
        return
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        while line := await reader.readline():
            yield line
    finally:
        transport.close()


def _is_null(file: BinaryIO) -> bool:
    # Neither a pipe nor a terminal: the event loop cannot wait for it.
    return stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty()
