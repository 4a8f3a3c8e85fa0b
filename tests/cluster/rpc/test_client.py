"""Calls and their ends: answered, in time or not, refused, stopped."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    LocalProtocolError,
    NotOwnerError,
    OverloadedError,
    RemoteProtocolError,
    RequestError,
    StorageError,
    TooLargeError,
    UnavailableError,
)
from cluster.rpc.client import RpcClient
from cluster.rpc.methods import Method, Route
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import (
    CHANGE,
    ECHO,
    FAIL,
    LOOK,
    MISTYPED,
    QUICK,
    SERVICE,
    UNKNOWN,
    error_of,
    pair,
)
from tests.support.eventually import eventually

BIG = 300_000


async def test_call_is_answered() -> None:
    async with pair() as ends:
        assert await ends.call(ECHO, b"hello") == b"hello"


async def test_many_calls_in_flight_are_answered_in_any_order() -> None:
    async with pair() as ends:
        await ends.up()
        answers = {name: ends.call(CHANGE, name) for name in ("a", "b", "c")}
        await ends.service.called("c")

        for name in ("b", "c", "a"):
            ends.service.waiting[name].set_result(name.upper())

        assert [await answers[name] for name in ("a", "b", "c")] == ["A", "B", "C"]


async def test_calls_reach_the_peer_in_the_order_in_which_they_were_made() -> None:
    async with pair() as ends:
        # The first ones before there is a connection.
        calls = [ends.call(CHANGE, str(number)) for number in range(50)]
        await ends.up()
        calls += [ends.call(CHANGE, str(number)) for number in range(50, 100)]
        await ends.service.called("99")

        assert list(ends.service.waiting) == [str(number) for number in range(100)]
        for number, call in enumerate(calls):
            ends.service.waiting[str(number)].set_result("")
            await call


async def test_large_arguments_and_answers_pass() -> None:
    async with pair() as ends:
        data = b"x" * 5_000_000

        assert await ends.call(ECHO, data) == data


async def test_errors_of_the_handler_arrive_as_they_are() -> None:
    async with pair() as ends:
        ends.service.failures = {"a": NotOwnerError("moved"), "b": StorageError("disk full")}

        first, second = await error_of(ends.call(FAIL, "a")), await error_of(ends.call(FAIL, "b"))

        assert (type(first), str(first)) == (NotOwnerError, "moved")
        assert (type(second), str(second)) == (StorageError, "disk full")


async def test_bug_of_the_handler_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as ends:
        ends.service.failures = {"a": ZeroDivisionError("secret detail")}

        error = await error_of(ends.call(FAIL, "a"))

        assert type(error) is EnckeError
        assert str(error) == "fail: internal error"
        assert "secret detail" in caplog.text


async def test_unknown_method_is_our_own_fault_and_others_go_on() -> None:
    async with pair() as ends:
        assert type(await error_of(ends.call(UNKNOWN))) is LocalProtocolError
        assert await ends.call(ECHO, b"still here") == b"still here"


async def test_arguments_of_a_wrong_type_are_our_own_fault_and_others_go_on() -> None:
    async with pair() as ends:
        error = await error_of(ends.call(MISTYPED, 7))

        assert type(error) is LocalProtocolError
        assert "expected" in str(error).lower()
        assert await ends.call(ECHO, b"still here") == b"still here"


async def test_arguments_that_cannot_be_encoded_are_our_own_fault() -> None:
    async with pair() as ends:
        assert type(await error_of(ends.call(ECHO, object()))) is LocalProtocolError
        assert type(await error_of(ends.call(CHANGE, "\udc80"))) is RequestError


async def test_answer_of_a_wrong_type_is_the_peers_fault_for_a_read_and_doubt_for_a_change() -> None:
    read = Method(ECHO.number, "read", tuple[bytes], int, is_read=True)
    change = Method(ECHO.number, "change", tuple[bytes], int)
    async with pair() as ends:
        assert type(await error_of(ends.call(read, b"x"))) is RemoteProtocolError
        assert type(await error_of(ends.call(change, b"x"))) is InDoubtError
        assert await ends.call(ECHO, b"still here") == b"still here"


# -- deadlines


async def test_call_without_an_answer_ends_at_its_deadline() -> None:
    async with pair() as ends:
        await ends.up()
        change, look = ends.call(CHANGE, "a", timeout_s=0.1), ends.call(LOOK, "b", timeout_s=0.1)

        assert type(await error_of(change)) is InDoubtError
        assert type(await error_of(look)) is UnavailableError
        assert ends.client.in_flight == 0


async def test_short_deadline_behind_a_long_one_is_kept() -> None:
    async with pair() as ends:
        await ends.up()
        long = ends.call(CHANGE, "long")
        began_at = time.monotonic()

        await error_of(ends.call(CHANGE, "short", timeout_s=0.05))

        assert time.monotonic() - began_at < 5
        assert not long.done()
        ends.service.waiting["long"].set_result("")
        await long


async def test_deadlines_are_kept_one_after_the_other() -> None:
    async with pair() as ends:
        await ends.up()
        ended: list[int] = []
        calls = [ends.call(CHANGE, str(n), timeout_s=0.05 + n / 20) for n in range(4)]
        for call in calls:
            call.add_done_callback(lambda done: ended.append(calls.index(done)))

        await asyncio.wait(calls)

        assert ended == [0, 1, 2, 3]
        assert all(isinstance(call.exception(), InDoubtError) for call in calls)


async def test_answer_after_the_deadline_is_dropped() -> None:
    async with pair() as ends:
        await ends.up()
        await error_of(ends.call(CHANGE, "a", timeout_s=0.05))

        ends.service.waiting["a"].set_result("late")

        assert await ends.call(ECHO, b"next") == b"next"


async def test_call_without_time_left_is_not_made() -> None:
    async with pair() as ends:
        await ends.up()

        assert type(await error_of(ends.call(CHANGE, "a", timeout_s=0.0))) is DeadlinePassedError
        assert await ends.call(ECHO, b"") == b""
        assert not ends.service.waiting


async def test_cancelling_a_call_only_stops_the_waiting() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        handler = await ends.service.called("a")

        call.cancel()

        assert await ends.call(ECHO, b"next") == b"next"
        assert not handler.cancelled()
        handler.set_result("done")
        await eventually(lambda: ends.client.in_flight == 0)


# -- limits


async def test_request_over_the_limit_is_not_sent() -> None:
    async with pair(replace(QUICK, max_frame_bytes=64 * 1024)) as ends:
        assert type(await error_of(ends.call(ECHO, b"x" * 64 * 1024))) is TooLargeError
        assert await ends.call(ECHO, b"y") == b"y"
        assert ends.proxy.accepted == 1


async def test_answer_over_the_limit_is_an_error_and_the_connection_lives() -> None:
    small = replace(QUICK, max_frame_bytes=64 * 1024)
    grow = Method(7, "grow", tuple[int], bytes, is_read=True)
    change = Method(8, "grow", tuple[int], bytes)

    async def handler(size: int) -> bytes:
        return b"x" * size

    server = RpcServer(SERVICE, [Route(grow, handler), Route(change, handler)], small)
    await server.start()
    client = RpcClient(server.address, SERVICE, small)
    client.start()

    assert type(await error_of(client.call(grow, (64 * 1024,), 20))) is TooLargeError
    assert type(await error_of(client.call(change, (64 * 1024,), 20))) is InDoubtError
    assert await client.call(grow, (1024,), 20) == b"x" * 1024
    await client.stop()
    await server.stop()


async def test_more_calls_than_allowed_are_refused_at_once() -> None:
    async with pair(replace(QUICK, max_calls=3), server_config=QUICK) as ends:
        await ends.up()
        calls = [ends.call(CHANGE, str(n)) for n in range(3)]

        error = await error_of(ends.call(CHANGE, "x"))
        await ends.service.called("2")

        assert type(error) is OverloadedError
        assert "x" not in ends.service.waiting
        ends.service.waiting["0"].set_result("")
        await calls[0]
        more = ends.call(CHANGE, "y")
        await ends.service.called("y")
        for name in ("1", "2", "y"):
            ends.service.waiting[name].set_result("")
        await asyncio.gather(*calls, more)


async def test_requests_in_flight_are_bounded_in_bytes_but_a_single_one_has_its_chance() -> None:
    async with pair(replace(QUICK, max_call_bytes=64 * 1024), server_config=QUICK) as ends:
        await ends.up()
        large = ends.call(ECHO, b"x" * BIG)

        error = await error_of(ends.call(ECHO, b"y"))

        assert type(error) is OverloadedError
        assert await large == b"x" * BIG
        assert await ends.call(ECHO, b"y") == b"y"


# -- stop


async def test_stop_waits_for_calls_in_flight() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        handler = await ends.service.called("a")
        stopping = asyncio.create_task(ends.client.stop(20))
        await asyncio.sleep(0)

        error = await error_of(ends.call(CHANGE, "b"))
        handler.set_result("done")

        assert type(error) is UnavailableError
        assert await call == "done"
        await stopping
        assert not ends.client.is_up


async def test_stop_fails_what_does_not_finish() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        await ends.service.called("a")

        await ends.client.stop(0.05)

        assert type(await error_of(call)) is InDoubtError
        assert type(await error_of(ends.call(ECHO, b""))) is UnavailableError
        await eventually(lambda: ends.server.connections == 0)


async def test_stop_while_dialling_fails_what_waits() -> None:
    async with pair() as ends:
        call = ends.call(CHANGE, "a")

        await ends.client.stop()

        assert type(await error_of(call)) is UnavailableError
