"""Clients that come and go with the list of instances."""

from __future__ import annotations

import asyncio

from cluster.errors import UnavailableError
from cluster.rpc.client import RpcClient
from cluster.rpc.pool import ClientPool
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import CHANGE, ECHO, QUICK, SERVICE, Service, error_of
from tests.support.eventually import eventually


def connect(address: str) -> RpcClient:
    return RpcClient(address, SERVICE, QUICK)


async def serve(service: Service) -> RpcServer:
    server = RpcServer(SERVICE, service.routes(), QUICK)
    await server.start()
    return server


async def test_clients_appear_and_stay_while_their_address_does() -> None:
    servers = [await serve(Service()) for _ in range(2)]
    pool = ClientPool(connect)

    first = pool.replace({"a": servers[0].address})
    second = pool.replace({"a": servers[0].address, "b": servers[1].address})

    assert second["a"] is first["a"]
    assert second.keys() == {"a", "b"}
    assert await second["b"].call(ECHO, (b"x",), 20) == b"x"
    await pool.stop()
    for server in servers:
        await server.stop()


async def test_client_of_an_instance_that_is_gone_finishes_its_calls() -> None:
    service = Service()
    server = await serve(service)
    pool = ClientPool(connect)
    client = pool.replace({"a": server.address})["a"]
    call = client.call(CHANGE, ("a",), 20)
    handler = await service.called("a")

    assert pool.replace({}) == {}
    await asyncio.sleep(0)
    error = await error_of(client.call(CHANGE, ("b",), 20))
    handler.set_result("done")

    assert type(error) is UnavailableError
    assert await call == "done"
    await eventually(lambda: server.connections == 0)
    await pool.stop()
    await server.stop()


async def test_instance_that_moved_gets_a_new_client() -> None:
    servers = [await serve(Service()) for _ in range(2)]
    pool = ClientPool(connect)
    old = pool.replace({"a": servers[0].address})["a"]

    new = pool.replace({"a": servers[1].address})["a"]

    assert new is not old
    assert await new.call(ECHO, (b"x",), 20) == b"x"
    await eventually(lambda: servers[0].connections == 0)
    await pool.stop()
    for server in servers:
        await server.stop()


async def test_stop_ends_also_those_that_were_finishing() -> None:
    service = Service()
    server = await serve(service)
    pool = ClientPool(connect)
    client = pool.replace({"a": server.address})["a"]
    call = client.call(CHANGE, ("a",), 20)
    await service.called("a")
    pool.replace({})

    await pool.stop()

    assert isinstance(await error_of(call), UnavailableError)
    await server.stop(0.0)
