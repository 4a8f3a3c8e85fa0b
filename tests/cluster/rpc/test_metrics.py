"""What calls count, on both sides."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import NotOwnerError
from cluster.rpc.client import RpcClient
from cluster.rpc.metrics import ClientMetrics
from cluster.rpc.pool import ClientPool
from cluster.rpc.server import RpcServer
from cluster.stats import HistogramReading, Stats
from tests.cluster.rpc_nodes import CHANGE, ECHO, FAIL, QUICK, SERVICE, UNKNOWN, Service, error_of, pair
from tests.support.eventually import eventually


def read(stats: Stats) -> dict[str, float]:
    """Every number by its name, and its label in braces."""
    numbers: dict[str, float] = {}
    for family in stats.snapshot():
        for label, reading in family.readings.items():
            assert not isinstance(reading, HistogramReading)
            numbers[f"{family.name}{{{label}}}" if label else family.name] = reading
    return numbers


async def test_calls_their_bytes_and_who_takes_them_are_counted_on_both_sides() -> None:
    mine, theirs = Stats(), Stats()
    async with pair(client_stats=mine, server_stats=theirs) as ends:
        await ends.up()
        waiting = ends.call(CHANGE, "a")
        await ends.service.called("a")
        for _ in range(3):
            await ends.call(ECHO, b"x" * 1000)

        client, server = read(mine), read(theirs)
        assert client["rpc_client_calls_total{test}"] == server["rpc_server_calls_total"] == 4
        assert client["rpc_client_in_flight{test}"] == server["rpc_server_in_progress"] == 1
        assert client["rpc_client_connections{test}"] == server["rpc_server_connections"] == 1
        assert client["rpc_client_connects_total{test}"] == 1
        assert 3000 < client["rpc_sent_bytes_total{client}"] == server["rpc_received_bytes_total{server}"]
        assert 3000 < client["rpc_received_bytes_total{client}"] == server["rpc_sent_bytes_total{server}"]
        ends.service.waiting["a"].set_result("done")
        await waiting
        assert read(mine)["rpc_client_in_flight{test}"] == 0


async def test_failures_are_counted_by_their_code_where_they_are_seen() -> None:
    mine, theirs = Stats(), Stats()
    async with pair(client_stats=mine, server_stats=theirs) as ends:
        await ends.up()
        ends.service.failures["a"] = NotOwnerError("not mine")
        await error_of(ends.call(FAIL, "a"))
        await error_of(ends.call(UNKNOWN))
        await error_of(ends.call(ECHO, b"", timeout_s=0))
        cancelled = ends.call(CHANGE, "b")
        lost = ends.call(CHANGE, "c")
        await ends.service.called("c")
        cancelled.cancel()
        await ends.server.stop(0.0)
        await error_of(lost)

        client, server = read(mine), read(theirs)
        # Nobody has seen the end of the cancelled one.
        assert {name: n for name, n in client.items() if "errors" in name} == {
            "rpc_client_errors_total{not_owner}": 1,
            "rpc_client_errors_total{local_protocol}": 1,
            "rpc_client_errors_total{deadline_passed}": 1,
            "rpc_client_errors_total{in_doubt}": 1,
        }
        assert {name: n for name, n in server.items() if "errors" in name} == {
            "rpc_server_errors_total{not_owner}": 1,
            "rpc_server_errors_total{local_protocol}": 1,
        }


async def test_connection_that_is_made_again_is_counted_again() -> None:
    stats = Stats()
    async with pair(client_stats=stats) as ends:
        await ends.up()
        ends.proxy.cut()
        await eventually(lambda: not ends.client.is_up)
        await ends.up()
        assert read(stats)["rpc_client_connects_total{test}"] == 2
        assert read(stats)["rpc_client_connections{test}"] == 1


async def test_calls_of_clients_that_are_gone_stay_counted() -> None:
    server = RpcServer(SERVICE, Service().routes(), QUICK)
    await server.start()
    stats = Stats()
    metrics = ClientMetrics(stats)
    pool = ClientPool(lambda address: RpcClient(address, SERVICE, QUICK, metrics=metrics))
    for name in ("a", "b"):
        client = pool.replace({name: server.address})[name]
        await client.call(ECHO, (b"x",), 20)
    await pool.stop()
    assert read(stats)["rpc_client_calls_total{test}"] == 2
    assert read(stats).get("rpc_client_connections{test}", 0) == 0
    await server.stop()


@pytest.mark.parametrize("count", [1, 50])
async def test_many_calls_in_one_turn_are_all_counted(count: int) -> None:
    mine, theirs = Stats(), Stats()
    async with pair(client_stats=mine, server_stats=theirs) as ends:
        await ends.up()
        await asyncio.gather(*(ends.call(ECHO, b"x") for _ in range(count)))
        assert read(mine)["rpc_client_calls_total{test}"] == count
        assert read(theirs)["rpc_server_calls_total"] == count
