"""Real processes: a comet node that has lost its keys unawares does not act as their owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.contracts.comet import Push, PushReply
from cluster.contracts.comet_rpc import SERVICE, CometStub
from cluster.errors import EnckeError, NotOwnerError
from cluster.model import Key
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from tests.support.cluster import Cluster, owned_by
from tests.support.eventually import eventually, eventually_told
from tests.support.peer import Address

# A node that is stopped says nothing for longer than usual connections last; what was asked of it stays.
PATIENT = RpcConfig(secret="between us", silence_s=120.0)

TWO = ("comet-1", "comet-2")
NODES = (
    ("message", "message-1"),
    ("comet", "comet-1"),
    ("comet", "comet-2"),
    ("web", "web-1"),
)


@asynccontextmanager
async def stub_of(address: Address) -> AsyncIterator[CometStub]:
    """What a web node has of a comet node."""
    client = RpcClient(f"{address[0]}:{address[1]}", SERVICE, PATIENT)
    client.start()
    try:
        await eventually(lambda: client.is_up)
        yield CometStub(client)
    finally:
        await client.stop()


@pytest.mark.parametrize("expire_s", [0, 600])
async def test_a_node_that_was_stopped_longer_than_its_session_delivers_nothing_of_what_came_meanwhile(
    cluster: Cluster, expire_s: int
) -> None:
    cluster.start(*NODES)
    key = owned_by(TWO, "comet-2", 1)[0]
    stopped = cluster.nodes["comet-2"]
    await cluster.wait_owner(key, "comet-2")
    async with (
        stub_of(stopped.addresses["rpc"]) as stub,
        stopped.subscriber("tcp", key, version="2", mid=0) as before,
    ):
        stopped.freeze()
        try:
            # A web node that still takes it for the owner.
            push = stub.push(Push([Key(key)], b'"stale"', expire_s, "stale", 0, 60.0, (0, 0)))

            async def has_moved() -> bool:
                return await cluster.owner(key) == "comet-1"

            await eventually_told(has_moved)
            assert await cluster.web.push(key, "new owner", 600) == 0
        finally:
            stopped.thaw()
        assert await refusal_of(push) == NotOwnerError.code
        ending = await before.end()
        assert ending.code == 4001
    stored = await cluster.web.fetch(key)
    assert [m["msg"] for m in stored] == ["new owner"]
    # The new owner forwards to connections that the node has not closed yet; nothing else may come.
    assert before.last_mid in (0, stored[0]["mid"])
    # It registers again by itself, and has its keys back.
    await cluster.wait_owner(key, "comet-2")
    async with stopped.subscriber("tcp", key, version="2", mid=0) as after:
        assert await cluster.web.push(key, "back", 600) == 0
        assert [d.value["msg"] for d in await after.documents(2)] == ["new owner", "back"]


async def refusal_of(push: asyncio.Future[PushReply]) -> str:
    """Why a push to one key was refused, as a whole or for the key."""
    try:
        reply = await push
    except EnckeError as error:
        return error.code
    return reply.failed[0].code if reply.failed else ""
