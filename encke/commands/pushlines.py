"""Standard input as a stream of pushes: one JSON object a line (docs/http-api.md, the stream)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import msgspec

from encke.client import Push
from encke.commands.arguments import tell

MAX_LINE_BYTES = 64 * 1024 * 1024
READ_BYTES = 64 * 1024


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


async def read_pushes(descriptor: int, expire_s: int, faults: list[str]) -> AsyncIterator[Push]:
    """Yield the pushes of an input's lines, as they come; a bad line is told on stderr and skipped.

    Args:
        faults: bad lines are added here, for the caller to count.
    """
    number = 0
    async for line in _read_lines(descriptor):
        number += 1
        if not line.strip():
            continue
        try:
            push = parse_push(line, expire_s)
        except ValueError as error:
            faults.append(f"line {number} is no push: {error}")
            tell(faults[-1])
            continue
        yield push


async def _read_lines(descriptor: int) -> AsyncIterator[bytes]:
    rest = bytearray()
    while chunk := await _read_some(descriptor):
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield bytes(line)
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of the input is over {MAX_LINE_BYTES} bytes")
    if rest:
        yield bytes(rest)


async def _read_some(descriptor: int) -> bytes:
    """The next bytes, when there are some; the descriptor stays blocking, as a terminal shares it."""
    loop = asyncio.get_running_loop()
    is_ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, is_ready.set)
    except PermissionError:
        # Plain files and /dev/null never make anyone wait; but the answers get their turn.
        await asyncio.sleep(0)
        return os.read(descriptor, READ_BYTES)
    try:
        await is_ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, READ_BYTES)
