"""A stream of pushes against a server that refuses, breaks off and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from encke.client import Publisher, Push, PushError, PushFailure, PushReply, PushTimeoutError
from tests.encke.scripted_admin import DEADLINE_S, Admin, served


async def numbers(count: int, expire_s: int = 60) -> AsyncIterator[Push]:
    for number in range(count):
        yield Push("bob", number, expire_s)


async def collect(stream: AsyncIterator[PushReply]) -> list[PushReply]:
    async with asyncio.timeout(DEADLINE_S):
        return [reply async for reply in stream]


async def test_stream_answers_in_order(admin: Admin, publisher: Publisher) -> None:
    replies = await collect(publisher.stream(numbers(1000)))
    assert [reply.results[0].mid for reply in replies] == [80 * n for n in range(1, 1001)]
    assert list(admin.stored.values()) == list(range(1000))


async def test_stream_takes_a_plain_list_and_several_keys(admin: Admin, publisher: Publisher) -> None:
    pushes = [Push(["a", "b"], msgspec.Raw(b'{"n":\n1}'), 60, "one"), Push("c", 2)]
    replies = await collect(publisher.stream(pushes))
    assert [[r.key for r in reply.results] for reply in replies] == [["a", "b"], ["c"]]
    assert replies[0].push_id == "one"
    assert admin.stored["a", "one"] == {"n": 1}


async def test_empty_stream_ends_without_a_request(admin: Admin, publisher: Publisher) -> None:
    admin.trouble = [400]
    assert await collect(publisher.stream([])) == []
    assert admin.trouble == [400]


async def test_stream_that_is_cut_goes_on_with_what_is_unanswered(admin: Admin, publisher: Publisher) -> None:
    admin.cuts = [0, 1, 17, 300]
    replies = await collect(publisher.stream(numbers(500)))
    assert [reply.results[0].mid for reply in replies] == [80 * n for n in range(1, 501)]
    assert list(admin.stored.values()) == list(range(500))


async def test_stream_that_a_draining_server_ends_goes_on(admin: Admin, publisher: Publisher) -> None:
    admin.ends = [1, 100, 17]
    replies = await collect(publisher.stream(numbers(500)))
    assert [reply.results[0].mid for reply in replies] == [80 * n for n in range(1, 501)]
    assert list(admin.stored.values()) == list(range(500))


@pytest.mark.parametrize("is_cut", [True, False])
async def test_stream_that_breaks_sends_nothing_again_that_has_no_id_and_may_be_done(
    admin: Admin, publisher: Publisher, is_cut: bool
) -> None:
    breaks = [1, 40, 17]
    if is_cut:
        admin.cuts = breaks
    else:
        admin.ends = breaks
    # Every third is stored.
    pushes = [Push("bob", number, 60 if number % 3 == 0 else 0) for number in range(300)]
    replies = await collect(publisher.stream(pushes, max_in_flight=8))
    assert len(replies) == 300
    done = [number for number, reply in enumerate(replies) if reply.error is None]
    lost = {number for number, reply in enumerate(replies) if isinstance(reply.error, PushTimeoutError)}
    assert len(done) + len(lost) == 300
    assert 0 < len(lost) <= 3 * 8
    assert all(number % 3 for number in lost)
    # What was answered was done, in order and once; replies are those of their pushes.
    values = list(admin.stored.values())
    assert values == done
    assert [replies[number].results[0].mid for number in done] == [80 * n for n in range(1, len(done) + 1)]


async def test_stream_does_not_run_ahead_of_its_answers(publisher: Publisher) -> None:
    given = 0

    async def pushes() -> AsyncIterator[Push]:
        nonlocal given
        for number in range(100):
            given += 1
            yield Push("bob", number)

    received = 0
    async for _ in publisher.stream(pushes(), max_in_flight=5):
        received += 1
        # One more waits for its turn, another is being asked for.
        assert given - received <= 7
    assert received == 100


async def test_failed_push_of_a_stream_does_not_stop_it(admin: Admin, publisher: Publisher) -> None:
    admin.failing = {"b": "unavailable"}
    bad = Push("c", msgspec.Raw(b"{"))
    replies = await collect(publisher.stream([Push("a", 1), Push("b", 2), bad, Push("d", 4)]))
    assert replies[1].failed == [PushFailure("b", "unavailable")]
    assert replies[2].error is not None
    assert replies[2].error.code == "bad_request"
    assert [bool(reply.results) for reply in replies] == [True, False, False, True]


async def test_stream_whose_source_fails_answers_what_came_before(admin: Admin, publisher: Publisher) -> None:
    async def failing() -> AsyncIterator[Push]:
        yield Push("bob", 1)
        raise LookupError("no more")

    replies = publisher.stream(failing())
    assert (await anext(replies)).results[0].mid == 80
    with pytest.raises(LookupError, match="no more"):
        await anext(replies)


async def test_refused_stream_is_raised(admin: Admin, publisher: Publisher) -> None:
    admin.trouble = [401]
    with pytest.raises(PushError, match="words"):
        await collect(publisher.stream(numbers(3)))


async def test_busy_server_is_asked_for_the_stream_again(admin: Admin, publisher: Publisher) -> None:
    admin.trouble = [503, 503]
    assert len(await collect(publisher.stream(numbers(3)))) == 3


async def test_stream_without_answers_fails_when_its_time_is_up(admin: Admin) -> None:
    admin.cuts = [0] * 1000
    async with served(admin) as url, Publisher(url, timeout_s=0.5) as publisher:
        with pytest.raises(PushTimeoutError):
            await collect(publisher.stream(numbers(3)))


async def test_stream_may_be_silent_for_as_long_as_its_source(admin: Admin) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[Push]:
        yield Push("bob", 1)
        await go_on.wait()
        yield Push("bob", 2)

    async with served(admin) as url, Publisher(url, timeout_s=0.2, attempt_timeout_s=0.05) as publisher:
        replies = publisher.stream(slow())
        assert (await anext(replies)).results[0].mid == 80
        asyncio.get_running_loop().call_later(0.4, go_on.set)
        assert (await anext(replies)).results[0].mid == 160
        assert [reply async for reply in replies] == []


async def test_abandoned_stream_ends_with_its_publisher(admin: Admin) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Push]:
        try:
            while True:
                yield Push("bob", 1)
        finally:
            closed.set()

    async with served(admin) as url:
        source = endless()
        async with Publisher(url) as publisher:
            async for _ in publisher.stream(source):
                break
        await source.aclose()
        assert closed.is_set()
