"""The publisher against a server that refuses, breaks off and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket

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
from tests.encke.scripted_admin import Admin, served
from tests.support.eventually import eventually


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


async def test_attempts_that_fail_are_told_while_others_follow(admin: Admin) -> None:
    told: list[PushError] = []
    admin.trouble = [503]
    admin.failing = {"bob": "unavailable"}
    async with served(admin) as url, Publisher(url, on_retry=told.append) as publisher:
        await publisher.push("bob", 1, id="one")
        assert [(error.code, error.status) for error in told] == [("word", 503), ("unavailable", 200)]
        admin.trouble = [503]
        async for _ in publisher.stream([Push("bob", 1, id="two")]):
            assert len(told) == 3
        admin.trouble = [400]
        with pytest.raises(PushError):
            await publisher.push("bob", 1)
    assert len(told) == 3


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


async def test_attempt_that_begins_late_is_bounded_too() -> None:
    is_over = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse:
        await is_over.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/2/admin/push", never)
    # The time is up before the attempt begins.
    async with serving_http(app) as url, Publisher(url, timeout_s=1e-9) as publisher:
        async with asyncio.timeout(10):
            with pytest.raises(PushTimeoutError):
                await publisher.push("bob", 1, id="one")
        is_over.set()


@pytest.mark.parametrize("limits", [{"timeout_s": 0}, {"attempt_timeout_s": -1}, {"max_connections": 0}])
def test_limits_that_aiohttp_takes_for_none_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Publisher("http://127.0.0.1:1", **limits)  # type: ignore[arg-type]


async def test_server_that_is_not_there_is_named() -> None:
    async with Publisher("http://127.0.0.1:1", timeout_s=0.3) as publisher:
        with pytest.raises(PushError, match=r"127\.0\.0\.1:1 cannot be reached") as caught:
            await publisher.push("bob", 1)
    assert caught.value.is_retryable


async def test_server_that_takes_no_connection_in_time_was_surely_not_asked() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Nobody accepts: after these the kernel answers nobody any more.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with Publisher(url, timeout_s=0.5) as publisher:
            with pytest.raises(PushError, match="cannot be reached") as caught:
                await publisher.push("bob", 1)
    assert not isinstance(caught.value, PushTimeoutError)
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


async def test_publisher_is_used_inside_its_context_only() -> None:
    publisher = Publisher("http://localhost:8091")
    with pytest.raises(RuntimeError, match="async with"):
        await publisher.push("bob", 1)
