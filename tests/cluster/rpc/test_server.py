"""The serving side: what becomes of calls whose caller has gone, and how a server stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import Any

import pytest

from cluster.errors import InDoubtError, OverloadedError, UnavailableError
from cluster.rpc.methods import Method, Route
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import CHANGE, ECHO, FAIL, LOOK, QUICK, SERVICE, error_of, pair
from tests.support.eventually import eventually

# The client alone would allow more.
GENEROUS = replace(QUICK, max_calls=100)


async def test_server_binds_loopback_unless_told_otherwise() -> None:
    server = RpcServer(SERVICE, [], QUICK)
    await server.start()

    assert server.address.startswith("127.0.0.1:")
    await server.stop()


async def test_address_in_use_is_an_error() -> None:
    one, other = RpcServer(SERVICE, [], QUICK), RpcServer(SERVICE, [], QUICK)
    await one.start()

    with pytest.raises(OSError, match="in use"):
        await other.start(one.address)
    await one.stop()


def test_two_methods_with_one_number_are_refused() -> None:
    async def handler() -> None:
        pass

    twin = type(ECHO)(ECHO.number, "twin", tuple[()], bytes)
    with pytest.raises(ValueError, match="echo and twin have the same number"):
        RpcServer(SERVICE, [Route(ECHO, handler), Route(twin, handler)], QUICK)


async def test_calls_begin_in_the_order_in_which_they_came_whatever_their_handlers_return() -> None:
    async with pair() as ends:
        await ends.up()
        methods: list[Method[Any]] = [CHANGE, LOOK, LOOK, CHANGE, LOOK, CHANGE, CHANGE, ECHO]
        calls = [ends.call(method, str(n)) for n, method in enumerate(methods[:-1])]
        await ends.call(ECHO, b"x")

        assert list(ends.service.waiting) == ["0", "1", "2", "3", "4", "5", "6"]
        for future in ends.service.waiting.values():
            future.set_result("")
        await asyncio.gather(*calls)


async def test_change_goes_on_when_its_caller_has_gone() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        handler = await ends.service.called("a")

        ends.proxy.cut()
        await error_of(call)
        await eventually(lambda: ends.server.connections == 1)

        assert not handler.done()
        handler.set_result("done")


async def test_change_goes_on_after_its_deadline_and_a_read_does_not() -> None:
    async with pair() as ends:
        await ends.up()
        change, look = ends.call(CHANGE, "a", timeout_s=0.05), ends.call(LOOK, "b", timeout_s=0.05)
        handler = await ends.service.called("a")
        await error_of(change)
        await error_of(look)

        await eventually(lambda: ends.service.cancelled == ["b"])

        assert not handler.done()
        # It still counts as work of this node.
        await eventually(lambda: ends.server.in_progress == 1)
        handler.set_result("")
        await eventually(lambda: ends.server.in_progress == 0)


async def test_read_of_a_caller_that_has_gone_ends_at_its_deadline() -> None:
    async with pair() as ends:
        await ends.up()
        look = ends.call(LOOK, "b", timeout_s=0.3)
        await ends.service.called("b")
        ends.proxy.cut()
        await error_of(look)

        await eventually(lambda: ends.service.cancelled == ["b"])


async def test_handler_that_gives_up_leaves_its_caller_in_doubt() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        handler = await ends.service.called("a")

        handler.cancel()

        assert type(await error_of(call)) is InDoubtError


async def test_future_that_failed_late_is_not_reported_as_unseen(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a", timeout_s=0.05)
        handler = await ends.service.called("a")
        await error_of(call)

        handler.set_exception(UnavailableError("too late for anybody"))
        await eventually(lambda: ends.server.in_progress == 0)
        del handler, call
        ends.service.waiting.clear()

    assert "never retrieved" not in caplog.text


async def test_more_calls_than_allowed_are_refused_without_being_begun() -> None:
    async with pair(GENEROUS, server_config=replace(QUICK, max_calls=2)) as ends:
        await ends.up()
        calls = [ends.call(CHANGE, name) for name in ("a", "b", "c")]

        error = await error_of(calls[2])

        assert type(error) is OverloadedError
        assert "too many calls" in str(error)
        assert sorted(ends.service.waiting) == ["a", "b"]
        for name in ("a", "b"):
            ends.service.waiting[name].set_result("")
        await asyncio.gather(*calls[:2])


async def test_requests_in_progress_are_bounded_in_bytes() -> None:
    async with pair(GENEROUS, server_config=replace(QUICK, max_call_bytes=64 * 1024)) as ends:
        await ends.up()
        first, second = ends.call(CHANGE, "x" * 65_000), ends.call(CHANGE, "y" * 2_000)

        assert type(await error_of(second)) is OverloadedError
        (await ends.service.called("x" * 65_000)).set_result("")
        await first


async def test_peer_that_does_not_read_its_answers_is_not_read_and_then_cut() -> None:
    slow = replace(QUICK, max_unread_bytes=64 * 1024, ping_interval_s=0.1, silence_s=0.5)
    async with pair(replace(GENEROUS, silence_s=60.0), server_config=slow) as ends:
        await ends.up()
        ends.proxy.stall()
        calls = [ends.call(ECHO, b"x" * 1_000_000) for _ in range(20)]

        await eventually(lambda: ends.server.connections == 0)

        ends.proxy.cut()
        errors = [await error_of(call) for call in calls]
        assert {type(error) for error in errors} == {UnavailableError}


async def test_peer_that_reads_slowly_gets_everything() -> None:
    async with pair(GENEROUS, server_config=replace(QUICK, max_unread_bytes=64 * 1024)) as ends:
        await ends.up()

        answers = await asyncio.gather(*(ends.call(ECHO, bytes([n]) * 500_000) for n in range(20)))

        assert [answer[0] for answer in answers] == list(range(20))


async def test_more_peers_than_allowed_are_refused() -> None:
    async with pair(server_config=replace(QUICK, max_connections=1)) as ends:
        await ends.up()
        reader, writer = await asyncio.open_connection(*ends.server.address.split(":"))

        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        await writer.wait_closed()
        assert ends.server.connections == 1


async def test_stop_finishes_calls_and_refuses_new_ones() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        handler = await ends.service.called("a")
        stopping = asyncio.create_task(ends.server.stop(20))
        await eventually(lambda: not ends.client.is_up)
        assert not stopping.done()

        handler.set_result("done")

        assert await call == "done"
        await stopping
        assert ends.server.connections == 0


async def test_call_that_crosses_the_goodbye_is_refused() -> None:
    async with pair() as ends:
        await ends.up()
        kept = ends.call(CHANGE, "kept")
        handler = await ends.service.called("kept")
        ends.proxy.delay_s = 0.1
        crossing = ends.call(CHANGE, "crossing")

        stopping = asyncio.create_task(ends.server.stop(20))

        error = await error_of(crossing)
        assert type(error) is UnavailableError
        assert "stopping" in str(error)
        handler.set_result("done")
        assert await kept == "done"
        await stopping


async def test_stop_does_not_wait_longer_than_told() -> None:
    async with pair() as ends:
        await ends.up()
        change, look = ends.call(CHANGE, "a"), ends.call(LOOK, "b")
        handler = await ends.service.called("a")
        await ends.service.called("b")

        await ends.server.stop(0.05)

        assert type(await error_of(change)) is InDoubtError
        assert type(await error_of(look)) is UnavailableError
        assert ends.service.cancelled == ["b"]
        assert not handler.done()


async def test_peer_that_connects_while_stopping_is_told_goodbye() -> None:
    async with pair() as ends:
        await ends.up()
        ends.service.failures = {"x": UnavailableError("x")}
        await error_of(ends.call(FAIL, "x"))

        await ends.server.stop()
        await eventually(lambda: not ends.client.is_up)

        assert type(await error_of(ends.call(ECHO, b""))) is UnavailableError


async def test_peer_that_was_being_accepted_when_the_server_stopped_makes_no_call() -> None:
    server = RpcServer(SERVICE, [], QUICK)
    await server.start()
    # Between the kernel's accept and connection_made, a turn of the loop later.
    link = server._accept()
    await server.stop(0.0)
    near, far = socket.socketpair()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: link, near)
    with far:
        far.setblocking(False)
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
    await link.wait_closed()
    assert server.connections == 0
