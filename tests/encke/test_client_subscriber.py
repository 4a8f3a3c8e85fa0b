"""The subscriber against a server that does what real ones do rarely: order, gaps, waiting, ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from encke.client import Gap, Message, ServerError, Subscriber, SubscriberOptions
from tests.encke.scripted import Connection, message, scripted
from tests.encke.subscribers import DEADLINE_S, Rounds, collect, mids, silent, subscriber, take
from tests.support.eventually import eventually


async def test_messages_come_in_order_and_reconnects_resume_after_the_last(transport: str) -> None:
    script = Rounds([1_000_080, 1_000_160], [1_000_240], [1_000_320])
    async with scripted(script) as server, subscriber(server, transport=transport) as source:
        assert await mids(source, 4) == [1_000_080, 1_000_160, 1_000_240, 1_000_320]
        assert [r["mid"] for r in server.requests] == ["1000000", "1000160", "1000240"]
        assert server.requests[0]["ver"] == "2.0"
        assert server.lookups == 3
        assert source.last_mid == 1_000_320


async def test_subscription_from_now_on_begins_at_the_server_s_time_even_if_the_first_one_fails() -> None:
    async def refuse_once(connection: Connection) -> None:
        if len(server.requests) == 1:
            server.now = 2_000_000
            await connection.say("-c")
        else:
            await silent(connection)

    async with scripted(refuse_once) as server, subscriber(server):
        assert [r["mid"] for r in server.requests] == ["1000000", "1000000"]


@pytest.mark.parametrize(("resume", "asked"), [(0, "0"), (160, "160"), ("ack", "ack")])
async def test_resume_asks_for_what_was_said(transport: str, resume: Any, asked: str) -> None:
    async with (
        scripted(silent) as server,
        subscriber(server, transport=transport, resume=resume, device="phone", token="t"),
    ):
        assert server.requests[0] == {
            "key": "bob",
            "heartbeat": "30",
            "token": "t",
            "ver": "2.0",
            "mid": asked,
            "dev": "phone",
        }


async def test_repeated_message_is_not_given_out_twice() -> None:
    async with scripted(Rounds([80, 160], [80, 160, 240])) as server, subscriber(server, resume=0) as source:
        assert await mids(source, 3) == [80, 160, 240]


async def test_gap_comes_in_its_place_and_is_not_announced_twice(transport: str) -> None:
    async def with_gap(connection: Connection) -> None:
        await connection.say("+h")
        if connection.request["mid"] == "80":
            await connection.say('{"gap":{"after":80,"before":800}}')
            return
        await connection.say(message(800))
        await connection.hear()

    async with (
        scripted(with_gap) as server,
        subscriber(server, transport=transport, resume=80) as source,
    ):
        assert await take(source, 2) == [Gap(80, 800), Message(800, b"800")]


async def test_gap_without_an_end_is_given_out_once_over_reconnects() -> None:
    async def with_gap(connection: Connection) -> None:
        await connection.say("+h")
        await connection.say('{"gap":{"after":80,"before":null}}')
        if len(server.requests) == 3:
            await connection.say(message(160))
            await connection.hear()

    async with scripted(with_gap) as server, subscriber(server, resume=80) as source:
        assert await take(source, 2) == [Gap(80, None), Message(160, b"160")]


async def test_slow_consumer_stops_the_reading_and_loses_nothing(transport: str) -> None:
    count, payload = 2000, "x" * 8000
    written = beats = 0

    async def flood(connection: Connection) -> None:
        nonlocal written
        await connection.say("+h")
        async with asyncio.TaskGroup() as group:
            group.create_task(answer(connection))
            for number in range(1, count + 1):
                await connection.say(message(80 * number, payload))
                written = number

    async def answer(connection: Connection) -> None:
        nonlocal beats
        while await connection.hear():
            beats += 1
            if written == count:  # Before that an answer would wait behind the messages.
                await connection.say("+h")

    options = SubscriberOptions(buffer_bytes=100_000, heartbeat_interval_s=0.05, answer_timeout_s=0.3)
    async with (
        scripted(flood) as server,
        subscriber(server, transport=transport, resume=0, options=options) as source,
    ):
        assert await mids(source, 1) == [80]
        # Each heartbeat follows the time for an answer to the one before: a full buffer is no silence.
        await eventually(lambda: beats >= 3)
        assert written < count
        assert await mids(source, count - 1) == [80 * n for n in range(2, count + 1)]
        assert len(server.requests) == 1


async def test_cancelled_iteration_loses_no_message() -> None:
    go_on = asyncio.Event()

    async def later(connection: Connection) -> None:
        await connection.say("+h")
        await go_on.wait()
        await connection.say(message(80))
        await connection.hear()

    async with scripted(later) as server, subscriber(server, resume=0) as source:
        waiting = asyncio.create_task(take(source, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        assert await mids(source, 1) == [80]


async def test_entering_can_be_cancelled_while_nobody_answers() -> None:
    async with scripted(silent) as server:
        server.server_answer = (503, "busy")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), subscriber(server):
                pass


async def test_closing_ends_an_iteration_in_another_task(transport: str) -> None:
    async with scripted(silent) as server:
        source = subscriber(server, transport=transport)
        async with source:
            iteration = asyncio.create_task(collect(source))
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            assert await iteration == []
        await source.close()


async def test_message_over_the_limit_is_an_error_and_not_an_endless_reconnect(transport: str) -> None:
    async def huge(connection: Connection) -> None:
        await connection.say("+h")
        await connection.say(message(80, "x" * 20_000))
        await connection.hear()

    options = SubscriberOptions(max_message_bytes=10_000)
    async with (
        scripted(huge) as server,
        subscriber(server, transport=transport, resume=0, options=options) as source,
    ):
        with pytest.raises(ServerError):
            await take(source, 1)


async def test_server_of_protocol_1_is_caught_up_with_over_http(transport: str) -> None:
    async def old(connection: Connection) -> None:
        await connection.say("+h")
        if len(server.requests) == 1:
            await connection.say(message(1_000_080))
            server.stored = [{"msg": {"n": m}, "mid": m, "gid": 0} for m in (1_000_080, 1_000_160, 1_000_240)]
            return
        await connection.say(message(1_000_240))
        await connection.say(message(1_000_320))
        await connection.hear()

    options = SubscriberOptions(backoff_base_s=0.01, protocol=1)
    async with scripted(old) as server:
        async with subscriber(server, transport=transport, options=options) as source:
            assert await mids(source, 4) == [1_000_080, 1_000_160, 1_000_240, 1_000_320]
        assert "mid" not in server.requests[1]
        assert server.requests[1]["ver"] == "1.0"


@pytest.mark.parametrize(
    "arguments",
    [
        {"transport": "udp"},
        {"resume": -1},
        {"resume": "all"},
        {"options": SubscriberOptions(protocol=1), "resume": "ack"},
    ],
)
def test_arguments_that_no_server_accepts_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Subscriber("http://localhost:8090", "bob", **arguments)


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 513])
def test_bad_keys_are_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Subscriber("http://localhost:8090", key)


async def test_subscriber_is_used_inside_its_context_only() -> None:
    source = Subscriber("http://localhost:8090", "bob")
    with pytest.raises(RuntimeError, match="async with"):
        await anext(source)
    async with scripted(silent) as server, subscriber(server) as entered:
        with pytest.raises(RuntimeError, match="once"):
            await entered.__aenter__()
