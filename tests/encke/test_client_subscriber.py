"""The subscriber against a server that does what real ones do rarely."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from encke.client import (
    Connected,
    Gap,
    KeyDeletedError,
    Message,
    Reconnecting,
    ServerError,
    Status,
    SubscribeError,
    Subscriber,
    SubscriberOptions,
    TokenRefusedError,
)
from tests.encke.scripted import Connection, ScriptedServer, message, scripted
from tests.support.eventually import eventually

FAST = SubscriberOptions(backoff_base_s=0.01, backoff_max_s=0.05, connect_timeout_s=5.0)
DEADLINE_S = 10.0


@pytest.fixture(params=["websocket", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def subscriber(server: ScriptedServer, **arguments: Any) -> Subscriber:
    return Subscriber(server.url, "bob", **{"options": FAST, **arguments})


async def take(source: Subscriber, count: int) -> list[Message | Gap]:
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


@pytest.mark.parametrize(
    ("code", "error"), [(4004, KeyDeletedError), (4401, TokenRefusedError), (1008, SubscribeError)]
)
async def test_final_endings_are_raised_after_the_messages_before_them(
    transport: str, code: int, error: type[SubscribeError]
) -> None:
    script = Rounds([1_000_080], [], end=(code, "for good"))
    async with scripted(script) as server, subscriber(server, transport=transport) as source:
        assert await mids(source, 1) == [1_000_080]
        with pytest.raises(error, match="for good") as caught:
            await anext(source)
        assert caught.value.code == code
        assert len(server.requests) == 1


@pytest.mark.parametrize("code", [1001, 4001, 4002, 4003, 1011, 1000])
async def test_other_endings_are_reported_and_survived(transport: str, code: int) -> None:
    seen: list[Status] = []
    script = Rounds([1_000_080], [1_000_160], end=(code, "come again"))
    async with (
        scripted(script) as server,
        subscriber(server, transport=transport, on_status=seen.append) as source,
    ):
        assert await mids(source, 2) == [1_000_080, 1_000_160]
    assert [type(status) for status in seen] == [Connected, Reconnecting, Connected]
    assert isinstance(seen[1], Reconnecting)
    assert (seen[1].code, seen[1].reason) == (code, "come again")


async def test_too_many_connections_waits_the_longest_delay() -> None:
    seen: list[Status] = []
    options = SubscriberOptions(backoff_base_s=0.001, backoff_max_s=0.05)
    script = Rounds([], [], end=(4005, "too many"))
    async with scripted(script) as server, subscriber(server, on_status=seen.append, options=options):
        await eventually(lambda: len(server.requests) == 2)
    assert isinstance(seen[1], Reconnecting)
    assert seen[1].delay_s >= 0.025


@pytest.mark.parametrize(
    ("line", "error"), [("-a", TokenRefusedError), ("-p", SubscribeError), ("hello", ServerError)]
)
async def test_refused_subscription_is_raised_on_entering(
    transport: str, line: str, error: type[Exception]
) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.say(line)

    async with scripted(refuse) as server:
        with pytest.raises(error):
            async with subscriber(server, transport=transport):
                pass


@pytest.mark.parametrize("line", ["-n", "-c", ""])
async def test_node_that_will_not_is_asked_again(transport: str, line: str) -> None:
    async def refuse_once(connection: Connection) -> None:
        if len(server.requests) > 1:
            await silent(connection)
        elif line:
            await connection.say(line)

    async with scripted(refuse_once) as server, subscriber(server, transport=transport):
        assert server.lookups == 2


@pytest.mark.parametrize(
    "words",
    [
        ["+h", '{"msg":1}'],
        ["+h", "nonsense"],
        [message(80)],
    ],
)
async def test_server_that_breaks_the_protocol_is_an_error(transport: str, words: list[str]) -> None:
    async def nonsense(connection: Connection) -> None:
        for word in words:
            await connection.say(word)
        await connection.hear()

    async with scripted(nonsense) as server:
        with pytest.raises(ServerError):
            async with subscriber(server, transport=transport) as source:
                await take(source, 1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, "not here"), ServerError),
        ((200, "<html>"), ServerError),
        ((200, '{"ret":0}'), ServerError),
        ((200, '{"ret":0,"data":{"server":"nowhere"}}'), ServerError),
        ((200, '{"ret":65534}'), SubscribeError),
    ],
)
async def test_wrong_answers_of_the_http_server_are_raised(
    answer: tuple[int, str], error: type[Exception]
) -> None:
    async with scripted(silent) as server:
        server.server_answer = answer
        with pytest.raises(error):
            async with subscriber(server):
                pass


@pytest.mark.parametrize("answer", [(503, "busy"), (200, '{"ret":1001}'), (200, '{"ret":65535}')])
async def test_http_server_that_cannot_now_is_asked_again(answer: tuple[int, str]) -> None:
    def see(status: Status) -> None:
        server.server_answer = None

    async with scripted(silent) as server:
        server.server_answer = answer
        async with subscriber(server, on_status=see):
            assert server.lookups == 2


async def test_unanswered_heartbeat_ends_the_connection(transport: str) -> None:
    seen: list[Status] = []
    options = SubscriberOptions(
        heartbeat_interval_s=0.02, answer_timeout_s=0.1, backoff_base_s=0.01, backoff_max_s=0.05
    )

    async def deaf_at_first(connection: Connection) -> None:
        if len(server.requests) > 1:
            await silent(connection)
            return
        await connection.say("+h")
        while await connection.hear():
            pass

    async with (
        scripted(deaf_at_first) as server,
        subscriber(server, transport=transport, on_status=seen.append, options=options),
    ):
        await eventually(lambda: len(seen) >= 3)
    assert isinstance(seen[1], Reconnecting)
    assert "heartbeat" in seen[1].reason


async def test_answered_heartbeats_keep_the_connection(transport: str) -> None:
    heard: list[str] = []
    options = SubscriberOptions(heartbeat_interval_s=0.01, answer_timeout_s=0.2)

    async def answering(connection: Connection) -> None:
        await connection.say("+h")
        while word := await connection.hear():
            heard.append(word)
            await connection.say("+h")

    async with (
        scripted(answering) as server,
        subscriber(server, transport=transport, options=options),
    ):
        await eventually(lambda: len(heard) >= 3)
        assert len(server.requests) == 1


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


async def test_token_is_fetched_for_each_connection_and_replaced_when_it_expires(transport: str) -> None:
    tokens = (f"token{n}" for n in itertools.count())

    async def fetch() -> str:
        return next(tokens)

    script = Rounds([1_000_080], [1_000_160], end=(4401, "token refused or expired"))
    async with scripted(script) as server:
        async with subscriber(server, transport=transport, token=fetch) as source:
            assert await mids(source, 2) == [1_000_080, 1_000_160]
        assert [r["token"] for r in server.requests] == ["token0", "token1"]


async def test_fetched_token_that_is_refused_at_once_is_an_error() -> None:
    async def fetch() -> str:
        return "bad"

    async def refuse(connection: Connection) -> None:
        await connection.say("-a")

    async with scripted(refuse) as server:
        with pytest.raises(TokenRefusedError):
            async with subscriber(server, token=fetch):
                pass


async def test_failing_token_source_reaches_the_caller() -> None:
    async def fetch() -> str:
        raise LookupError("no token today")

    async with scripted(silent) as server:
        with pytest.raises(LookupError, match="today"):
            async with subscriber(server, token=fetch):
                pass


async def test_token_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted(silent) as server, subscriber(server, token="very-secret"):
        pass
    assert caplog.records
    ours = [record for record in caplog.records if not record.name.startswith("websockets.server")]
    assert not any("very-secret" in record.getMessage() for record in ours)


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
            iteration = asyncio.create_task(_collect(source))
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            assert await iteration == []
        await source.close()


async def _collect(source: Subscriber) -> list[Message | Gap]:
    return [item async for item in source]


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
