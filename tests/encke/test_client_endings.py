"""What ends a subscriber, and what it survives."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from encke.client import (
    Connected,
    KeyDeletedError,
    Reconnecting,
    ServerError,
    Status,
    SubscribeError,
    SubscriberOptions,
    TokenRefusedError,
)
from tests.encke.scripted import Connection, message, scripted
from tests.encke.subscribers import Rounds, mids, silent, subscriber, take
from tests.support.eventually import eventually


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


async def test_heartbeats_are_sent_at_their_interval_also_while_answers_are_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        """Until the answer to the last heartbeat has come."""
        slept.append(delay_s)
        assert source._keeper is not None
        await eventually(lambda: source._keeper._words >= len(slept) // 2)

    clock = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    monkeypatch.setattr("encke.client.keeper.asyncio", clock)
    options = SubscriberOptions(heartbeat_interval_s=30.0, answer_timeout_s=10.0)
    async with scripted(silent) as server:
        source = subscriber(server, options=options)
        async with source:
            await eventually(lambda: len(slept) >= 6)
    assert slept[:6] == [30.0, 10.0, 20.0, 10.0, 20.0, 10.0]


def test_answers_that_are_awaited_longer_than_the_server_waits_for_a_heartbeat_are_refused() -> None:
    with pytest.raises(ValueError, match="answer_timeout_s"):
        SubscriberOptions(answer_timeout_s=31.0)


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
