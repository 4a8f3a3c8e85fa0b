"""The publisher against a server that refuses, breaks off and comes back; real sockets, scripted answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from encke.client import (
    Publisher,
    Push,
    PushError,
    PushFailure,
    PushReply,
    PushResult,
    PushTimeoutError,
    ServerError,
)
from tests.encke.scripted import serving_http
from tests.support.eventually import eventually

DEADLINE_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """An admin API that stores pushes in a dict, and does what `trouble` says first."""

    def __init__(self) -> None:
        # By key and id: the message is there once.
        self.stored: dict[tuple[str, str], object] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        # Each is used for one request: a status, or "cut" before or after the push is done.
        self.trouble: list[int | str] = []
        # Code for each of these keys, once.
        self.failing: dict[str, str] = {}
        # A stream is cut after so many answers, once each.
        self.cuts: list[int] = []
        # A stream is ended in order after so many answers, once each.
        self.ends: list[int] = []

    async def push(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, int):
            return web.json_response({"error": {"code": "word", "message": "words"}}, status=trouble)
        if trouble == "cut before":
            return _cut(request)
        answer = self.store(body)
        return _cut(request) if trouble == "cut after" else web.json_response(answer)

    def store(self, body: dict[str, Any]) -> dict[str, Any]:
        keys = [body["key"]] if "key" in body else body["keys"]
        push_id = body.get("id", f"none-{len(self.stored)}")
        results, failed = [], []
        for key in keys:
            if key in self.failing:
                failed.append({"key": key, "code": self.failing.pop(key)})
                continue
            known = (key, push_id) in self.stored
            self.stored.setdefault((key, push_id), body["msg"])
            mid = 80 * (1 + list(self.stored).index((key, push_id)))
            result = {"key": key, "mid": mid, "online": 1}
            results.append({**result, "repeated": True} if known else result)
        return {"results": results, "failed": failed}

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, int):
            return web.json_response({"error": {"code": "word", "message": "words"}}, status=trouble)
        await response.prepare(request)
        cut_at = self.cuts.pop(0) if self.cuts else -1
        end_at = self.ends.pop(0) if self.ends else -1
        answered = 0
        async for line in request.content:
            if answered == cut_at:
                return _cut(request)
            if answered == end_at:
                return response
            try:
                answer = self.store(json.loads(line))
            except ValueError:
                answer = {"error": {"code": "bad_request", "message": "not JSON"}}
            answered += 1
            await response.write(json.dumps(answer).encode() + b"\n")
        return response


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@contextlib.asynccontextmanager
async def served(admin: Admin) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/2/admin/push", admin.push)
    app.router.add_post("/2/admin/push/stream", admin.stream)
    async with serving_http(app) as url:
        yield url


@pytest.fixture
def admin() -> Admin:
    return Admin()


@pytest.fixture
async def publisher(admin: Admin) -> AsyncIterator[Publisher]:
    async with served(admin) as url, Publisher(url, token="secret") as entered:
        yield entered


async def test_push_says_what_became_of_it(admin: Admin, publisher: Publisher) -> None:
    result = await publisher.push("bob", {"n": 1}, expire_s=60, id="one")
    assert result == PushResult("bob", 80, 1)
    assert admin.requests == [{"key": "bob", "msg": {"n": 1}, "expire": 60, "id": "one"}]
    assert admin.headers[0]["Authorization"] == "Bearer secret"


async def test_every_push_has_an_id_of_its_own(admin: Admin, publisher: Publisher) -> None:
    await asyncio.gather(*(publisher.push("bob", n, expire_s=60) for n in range(10)))
    assert len({request["id"] for request in admin.requests}) == 10


async def test_push_that_is_not_stored_has_no_id_but_the_callers(admin: Admin, publisher: Publisher) -> None:
    await publisher.push("bob", 1)
    await publisher.push("bob", 1, id="one")
    assert [request.get("id") for request in admin.requests] == [None, "one"]


@pytest.mark.parametrize("trouble", ["cut before", "cut after", 502, 504])
async def test_push_without_an_id_is_not_sent_again_when_it_may_have_been_done(
    admin: Admin, publisher: Publisher, trouble: int | str
) -> None:
    admin.trouble = [trouble]
    with pytest.raises(PushError) as caught:
        await publisher.push("bob", 1)
    assert caught.value.push_id == ""
    admin.failing = {"a": "in_doubt"}
    reply = await publisher.push_many(["a", "b"], 1)
    assert reply.failed == [PushFailure("a", "in_doubt")]
    assert len(admin.requests) == 2


@pytest.mark.parametrize("trouble", [503, 429])
async def test_push_without_an_id_is_sent_again_when_it_was_not_done(
    admin: Admin, publisher: Publisher, trouble: int
) -> None:
    admin.trouble = [trouble]
    admin.failing = {"bob": "unavailable"}
    assert (await publisher.push("bob", 1)).mid == 80
    assert len(admin.requests) == 3


async def test_json_text_is_passed_on_as_it_is(admin: Admin, publisher: Publisher) -> None:
    await publisher.push("bob", msgspec.Raw(b'{"n": [1]}'))
    assert admin.requests[0]["msg"] == {"n": [1]}


@pytest.mark.parametrize("trouble", ["cut before", "cut after", 503, 502, 504, 429])
async def test_failed_attempt_is_repeated_with_the_same_id(
    admin: Admin, publisher: Publisher, trouble: int | str
) -> None:
    admin.trouble = [trouble, trouble]
    result = await publisher.push("bob", 1, expire_s=60)
    assert len(admin.requests) == 3
    assert len({request["id"] for request in admin.requests}) == 1
    assert len(admin.stored) == 1
    assert result.repeated == (trouble == "cut after")


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413])
async def test_refused_push_is_raised_at_once(admin: Admin, publisher: Publisher, status: int) -> None:
    admin.trouble = [status]
    with pytest.raises(PushError, match="words") as caught:
        await publisher.push("bob", 1)
    assert (caught.value.code, caught.value.status, caught.value.is_retryable) == ("word", status, False)
    assert len(admin.requests) == 1


async def test_push_that_fails_until_its_time_is_up_raises_the_last_failure(admin: Admin) -> None:
    admin.trouble = [503] * 1000
    async with served(admin) as url, Publisher(url, timeout_s=0.5) as publisher:
        with pytest.raises(PushError) as caught:
            await publisher.push("bob", 1, id="one")
    assert caught.value.push_id == "one"
    assert len(admin.requests) > 1


async def test_lost_answers_until_the_time_is_up_are_a_timeout(admin: Admin) -> None:
    admin.trouble = ["cut after"] * 1000
    async with served(admin) as url, Publisher(url, timeout_s=0.5) as publisher:
        with pytest.raises(PushTimeoutError) as caught:
            await publisher.push("bob", 1, id="one")
    assert caught.value.push_id == "one"
    assert caught.value.is_retryable


async def test_server_that_is_not_there_is_named() -> None:
    async with Publisher("http://127.0.0.1:1", timeout_s=0.3) as publisher:
        with pytest.raises(PushError, match=r"127\.0\.0\.1:1 cannot be reached") as caught:
            await publisher.push("bob", 1)
    assert caught.value.is_retryable


async def test_silent_server_is_asked_again(admin: Admin) -> None:
    asked = 0
    is_over = asyncio.Event()

    async def silent_once(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            await is_over.wait()
        return await admin.push(request)

    app = web.Application()
    app.router.add_post("/2/admin/push", silent_once)
    async with serving_http(app) as url, Publisher(url, attempt_timeout_s=0.1) as publisher:
        assert (await publisher.push("bob", 1, expire_s=60)).mid == 80
        is_over.set()


@pytest.mark.parametrize("body", ["<html>", "{}", "[]", '{"results":7}'])
async def test_answer_that_is_none_is_a_clear_error(body: str) -> None:
    async def other(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_post("/2/admin/push", other)
    async with serving_http(app) as url, Publisher(url) as publisher:
        with pytest.raises(ServerError):
            await publisher.push("bob", 1, expire_s=60)


async def test_wrong_address_is_guessed() -> None:
    async with serving_http(web.Application()) as url, Publisher(url) as publisher:
        with pytest.raises(ServerError, match="is it the admin address"):
            await publisher.push("bob", 1)


async def test_waiting_for_a_turn_is_not_waiting_for_an_answer(admin: Admin) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await admin.push(request)

    app = web.Application()
    app.router.add_post("/2/admin/push", slow)
    async with serving_http(app) as url, Publisher(url, timeout_s=0.4, max_connections=2) as publisher:
        results = await asyncio.gather(*(publisher.push("bob", n) for n in range(30)))
    assert len({result.mid for result in results}) == len(admin.requests) == 30


async def test_many_keys_are_told_apart(admin: Admin, publisher: Publisher) -> None:
    admin.failing = {"b": "bad_request"}
    reply = await publisher.push_many(["a", "b", "c", "a"], 1, id="one")
    assert [result.key for result in reply.results] == ["a", "c"]
    assert reply.failed == [PushFailure("b", "bad_request")]
    assert reply.push_id == "one"
    assert len(admin.requests) == 1


async def test_keys_that_fail_for_a_moment_are_tried_again_alone(admin: Admin, publisher: Publisher) -> None:
    admin.failing = {"b": "unavailable"}
    reply = await publisher.push_many(["a", "b", "c"], 1)
    assert [result.key for result in reply.results] == ["a", "b", "c"]
    assert reply.failed == []
    assert [request["keys"] for request in admin.requests] == [["a", "b", "c"], ["b"]]


async def test_what_succeeded_is_told_even_if_a_later_attempt_fails(
    admin: Admin, publisher: Publisher
) -> None:
    admin.failing = {"b": "unavailable"}
    sent = asyncio.create_task(publisher.push_many(["a", "b"], 1))
    await eventually(lambda: len(admin.requests) == 1)
    admin.trouble = [400]
    reply = await sent
    assert [result.key for result in reply.results] == ["a"]
    assert reply.failed == [PushFailure("b", "word")]


async def test_no_keys_are_no_request(admin: Admin, publisher: Publisher) -> None:
    assert await publisher.push_many([], 1) == PushReply("", [], [])
    assert admin.requests == []


@pytest.mark.parametrize("key", ["", "a\nb", "\ud800"])
async def test_bad_key_is_refused_without_a_request(admin: Admin, publisher: Publisher, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await publisher.push(key, 1)
    assert admin.requests == []


async def test_value_that_is_no_json_is_refused_without_a_request(publisher: Publisher) -> None:
    with pytest.raises(TypeError):
        await publisher.push("bob", object())


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


async def test_publisher_is_used_inside_its_context_only() -> None:
    publisher = Publisher("http://localhost:8091")
    with pytest.raises(RuntimeError, match="async with"):
        await publisher.push("bob", 1)
