"""The connection of a client: made, lost, half open, stalled, made again."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from cluster.errors import InDoubtError, UnavailableError
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.connector import GOOD_LIFE_S, pause_s
from cluster.rpc.server import RpcServer
from cluster.rpc.session import RefusedPeers
from tests.cluster.rpc_nodes import ALERT, CHANGE, ECHO, LOOK, QUICK, SERVICE, error_of, pair
from tests.support.eventually import eventually
from tests.support.proxy import Way

BIG = 300_000


async def test_calls_made_while_dialling_wait_for_the_connection() -> None:
    async with pair() as ends:
        assert not ends.client.is_up
        assert ends.client.is_connecting

        assert await ends.call(ECHO, b"first") == b"first"


async def test_call_before_the_start_fails_at_once() -> None:
    async with pair(is_started=False) as ends:
        error = await error_of(ends.call(CHANGE, "a"))

        assert type(error) is UnavailableError
        assert "not started" in str(error)


async def test_cut_connection_leaves_changes_in_doubt_and_reads_to_be_asked_again() -> None:
    async with pair() as ends:
        await ends.up()
        change, look = ends.call(CHANGE, "a"), ends.call(LOOK, "b")
        await ends.service.called("b")

        ends.proxy.cut()

        assert type(await error_of(change)) is InDoubtError
        assert type(await error_of(look)) is UnavailableError


async def test_client_connects_again_by_itself() -> None:
    async with pair() as ends:
        await ends.up()
        ends.proxy.cut()
        await eventually(lambda: not ends.client.is_up)

        await ends.up()

        assert await ends.call(ECHO, b"again") == b"again"
        assert ends.proxy.accepted == 2


async def test_peer_of_a_connection_that_lived_is_dialled_at_once_and_calls_wait_for_it() -> None:
    async with pair(replace(QUICK, backoff_first_s=60.0, backoff_max_s=60.0)) as ends:
        await ends.up()
        loop = asyncio.get_running_loop()
        up_at = loop.time()
        await eventually(lambda: loop.time() - up_at > GOOD_LIFE_S)
        lost = ends.call(CHANGE, "a")
        await ends.service.called("a")

        ends.proxy.cut()
        assert type(await error_of(lost)) is InDoubtError

        assert ends.client.is_connecting
        assert await ends.call(ECHO, b"again") == b"again"


async def test_peer_that_does_not_accept_is_given_up() -> None:
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # Fills the queue of connections that nobody accepts.
        first.connect(deaf.getsockname())
        host, port = deaf.getsockname()
        client = RpcClient(f"{host}:{port}", SERVICE, replace(QUICK, connect_timeout_s=0.1))
        client.start()

        error = await error_of(client.call(CHANGE, ("a",), 20))

        assert type(error) is UnavailableError
        assert "no connection within 0.1 s" in str(error)
        await client.stop()


async def test_call_to_a_peer_that_cannot_be_reached_was_surely_not_made() -> None:
    async with pair() as ends:
        ends.proxy.refuse()

        errors = [await error_of(ends.call(CHANGE, str(n))) for n in range(3)]
        await eventually(lambda: ends.proxy.accepted >= 3)

        assert {type(error) for error in errors} == {UnavailableError}
        assert not ends.service.waiting
        ends.proxy.heal()
        await ends.up()


async def test_nobody_listening_is_told_in_words() -> None:
    server = RpcServer(SERVICE, [], QUICK)
    await server.start()
    address = server.address
    await server.stop(0.0)
    client = RpcClient(address, SERVICE, QUICK)
    client.start()

    error = await error_of(client.call(CHANGE, ("a",), 20))

    assert type(error) is UnavailableError
    assert address in str(error)
    assert "refused" in str(error).lower()
    await client.stop()


async def test_a_host_that_nobody_can_look_up_is_told_in_words() -> None:
    # Its label is too long for DNS only when it has been encoded.
    client = RpcClient("ü" * 60 + ":1", SERVICE, QUICK)
    client.start()

    error = await error_of(client.call(CHANGE, ("a",), 20))

    assert type(error) is UnavailableError
    assert "idna" in str(error)
    await client.stop()


async def test_peer_that_never_shakes_hands_is_given_up() -> None:
    silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    client = RpcClient(f"{host}:{port}", SERVICE, replace(QUICK, handshake_s=0.1))
    client.start()

    error = await error_of(client.call(CHANGE, ("a",), 20))

    assert type(error) is UnavailableError
    assert "no handshake" in str(error)
    await client.stop()
    silent.close()


async def test_call_that_waits_for_a_connection_ends_at_its_deadline() -> None:
    async with pair() as ends:
        ends.proxy.stall()

        error = await error_of(ends.call(CHANGE, "a", timeout_s=0.1))

        assert type(error) is UnavailableError
        assert "not connected in time" in str(error)


@pytest.mark.parametrize("ways", [(Way.UP, Way.DOWN), (Way.UP,), (Way.DOWN,)], ids=["both", "up", "down"])
async def test_half_open_connection_is_noticed_and_its_calls_end(ways: tuple[Way, ...]) -> None:
    async with pair(ALERT) as ends:
        await ends.up()
        ends.proxy.drop(*ways)

        error = await error_of(ends.call(CHANGE, "a"))

        assert type(error) is InDoubtError
        ends.proxy.heal()
        await ends.up()
        assert await ends.call(ECHO, b"again") == b"again"


async def test_stalled_connection_is_noticed() -> None:
    async with pair(ALERT) as ends:
        await ends.up()
        ends.proxy.stall()

        assert type(await error_of(ends.call(CHANGE, "a"))) is InDoubtError


async def test_idle_connection_stays() -> None:
    async with pair(ALERT) as ends:
        await ends.up()
        call = ends.call(CHANGE, "a", timeout_s=2 * ALERT.silence_s)

        # Its deadline lies far beyond the silence that is allowed.
        await error_of(call)

        assert ends.client.is_up
        assert ends.proxy.accepted == 1


async def test_slow_connection_is_slow_but_lives() -> None:
    async with pair(ALERT) as ends:
        await ends.up()
        ends.proxy.delay_s = 0.1

        answers = await asyncio.gather(*(ends.call(ECHO, bytes([n])) for n in range(20)))

        assert answers == [bytes([n]) for n in range(20)]
        assert ends.proxy.accepted == 1


async def test_half_an_answer_is_discarded() -> None:
    async with pair() as ends:
        await ends.up()
        ends.proxy.truncate(Way.DOWN, 1000)

        error = await error_of(ends.call(ECHO, b"x" * BIG))

        assert type(error) is UnavailableError
        ends.proxy.heal()
        await ends.up()
        assert await ends.call(ECHO, b"x" * BIG) == b"x" * BIG


async def test_half_a_request_is_discarded_and_in_doubt() -> None:
    async with pair() as ends:
        await ends.up()
        ends.proxy.truncate(Way.UP, 1000)

        error = await error_of(ends.call(CHANGE, "x" * BIG))

        assert type(error) is InDoubtError
        assert not ends.service.waiting


async def test_service_that_is_stopping_is_not_called_any_more() -> None:
    async with pair() as ends:
        await ends.up()
        call = ends.call(CHANGE, "a")
        await ends.service.called("a")
        stopping = asyncio.create_task(ends.server.stop())
        await eventually(lambda: not ends.client.is_up)

        error = await error_of(ends.call(CHANGE, "b"))
        ends.service.waiting["a"].set_result("done")

        assert type(error) is UnavailableError
        assert await call == "done"
        await stopping
        assert "b" not in ends.service.waiting


async def test_other_service_is_not_called() -> None:
    async with pair(is_started=False) as ends:
        client = RpcClient(ends.server.address, "other", QUICK)
        client.start()

        error = await error_of(client.call(CHANGE, ("a",), 20))

        assert "this is a test node, not 'other'" in str(error)
        await client.stop()


def test_pauses_double_up_to_the_longest_and_half_of_each_is_chance() -> None:
    config = RpcConfig(backoff_first_s=0.1, backoff_max_s=1.0)

    assert [pause_s(config, failures, 0.0) for failures in (1, 2, 3, 4, 5, 9999)] == [
        0.05, 0.1, 0.2, 0.4, 0.5, 0.5,
    ]  # fmt: skip
    assert pause_s(config, 1, 0.5) == pytest.approx(0.075)
    assert pause_s(config, 9, 0.999) == pytest.approx(1.0, rel=0.01)


async def test_broken_connection_is_logged_once_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with pair() as ends:
        await ends.up()
        ends.proxy.refuse()
        await eventually(lambda: ends.proxy.accepted >= 4)
        ends.proxy.heal()
        await ends.up()

    messages = [record.getMessage() for record in caplog.records]
    assert sum("peer down" in message for message in messages) == 1
    assert sum("peer up" in message for message in messages) == 2


async def test_refused_client_knows_why_until_it_is_let_in_or_the_peer_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RpcServer(SERVICE, [], replace(QUICK, secret="right"))
    await server.start()
    client = RpcClient(server.address, SERVICE, replace(QUICK, secret="wrong"))
    refusal = f"{server.address}: refused by the peer: wrong shared secret"
    assert client.refusal is None
    client.start()
    await eventually(lambda: client.refusal == refusal)
    await server.stop(0.0)
    await eventually(lambda: client.refusal is None)
    again = RpcServer(SERVICE, [], replace(QUICK, secret="wrong"))
    await again.start(server.address)
    await eventually(lambda: client.is_up)
    assert client.refusal is None
    await client.stop()
    await again.stop(0.0)
    assert "calls refused: " in caplog.text


async def test_peer_that_does_not_answer_was_tried_also_while_it_is_dialled_again() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    address = "{}:{}".format(*silent.getsockname())
    client = RpcClient(address, SERVICE, replace(QUICK, handshake_s=0.05))
    client.start()
    assert not client.was_tried
    await eventually(lambda: client.was_tried)
    await eventually(lambda: client.is_connecting)
    assert client.was_tried
    assert client.refusal is None
    await client.stop()
    silent.close()


def test_refusals_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    refusals = RefusedPeers()
    for now in (100.0, 101.0, 159.9, 160.0, 219.0):
        refusals.take(f"peer-{now}", "wrong shared secret", now)
    assert [record.getMessage() for record in caplog.records] == [
        "calls refused: peer=peer-100.0 reason=wrong shared secret",
        "calls refused: peer=peer-160.0 reason=wrong shared secret",
    ]
