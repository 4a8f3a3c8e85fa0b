"""What tests of the subscriber share; some of it for a scripted server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from encke.client import Gap, Message, Subscriber, SubscriberOptions
from tests.encke.scripted import Connection, ScriptedServer, message

FAST = SubscriberOptions(backoff_base_s=0.01, backoff_max_s=0.05, connect_timeout_s=5.0)
DEADLINE_S = 30.0


def subscriber(server: ScriptedServer, **arguments: Any) -> Subscriber:
    return Subscriber(server.url, "bob", **{"options": FAST, **arguments})


async def take(source: Subscriber, count: int) -> list[Message | Gap]:
    """The next items, of any server."""
    items = []
    async with asyncio.timeout(DEADLINE_S):
        while len(items) < count:
            items.append(await anext(source))
    return items


async def mids(source: Subscriber, count: int) -> list[int]:
    return [item.mid for item in await take(source, count) if isinstance(item, Message)]


async def silent(connection: Connection) -> None:
    """Accept, answer heartbeats, say nothing else."""
    await connection.say("+h")
    while word := await connection.hear():
        if word == "h":
            await connection.say("+h")


class Rounds:
    """A script that says other mids on each connection, and then ends it as told."""

    def __init__(self, *rounds: list[int], end: tuple[int, str] | None = None) -> None:
        self._rounds: Iterator[list[int]] = itertools.chain(rounds, itertools.repeat([]))
        self._left = len(rounds)
        self._end = end

    async def __call__(self, connection: Connection) -> None:
        await connection.say("+h")
        for mid in next(self._rounds):
            await connection.say(message(mid))
        self._left -= 1
        if self._left <= 0:
            await connection.hear()
        elif self._end is not None:
            await connection.end(*self._end)


async def collect(source: Subscriber) -> list[Message | Gap]:
    return [item async for item in source]
