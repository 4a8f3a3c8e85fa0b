"""What a subscriber acknowledges, and when."""

from __future__ import annotations

import asyncio

import pytest

from tests.encke.scripted import Connection, message, scripted
from tests.encke.subscribers import Rounds, mids, subscriber, take
from tests.support.eventually import eventually


async def test_acknowledgement_is_sent_and_repeated_on_the_next_connection(transport: str) -> None:
    heard: list[list[str]] = []

    async def listening(connection: Connection) -> None:
        words: list[str] = []
        heard.append(words)
        await connection.say("+h")
        await connection.say(message(80 * len(heard)))
        while word := await connection.hear():
            words.append(word)
            if len(heard) == 1:
                return
            if word == "h":
                await connection.say("+h")

    async with (
        scripted(listening) as server,
        subscriber(server, transport=transport, resume=0) as source,
    ):
        assert await mids(source, 1) == [80]
        await source.acknowledge(80)
        assert await mids(source, 1) == [160]
        await source.acknowledge(160)
        await source.acknowledge(80)
        await eventually(lambda: len(heard) > 1 and "a160" in heard[1])
    assert heard[0] == ["a80"]
    assert heard[1] == ["a160"]


async def test_acknowledging_what_was_not_received_is_refused() -> None:
    async with scripted(Rounds([80])) as server, subscriber(server, resume=0) as source:
        await take(source, 1)
        with pytest.raises(ValueError, match="not received"):
            await source.acknowledge(160)


async def test_automatic_acknowledgement_follows_the_request_for_the_next_message(transport: str) -> None:
    heard: list[str] = []

    async def listening(connection: Connection) -> None:
        await connection.say("+h")
        for number in range(1, 251):
            await connection.say(message(80 * number))
        while word := await connection.hear():
            heard.append(word)

    async with (
        scripted(listening) as server,
        subscriber(server, transport=transport, resume="ack", auto_acknowledge=True) as source,
    ):
        await mids(source, 250)
        assert f"a{80 * 250}" not in heard
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(source)
        await eventually(lambda: heard[-1:] == [f"a{80 * 250}"])
    assert len(heard) < 250
