"""Real processes: who was not sent away yet is served by the new owner, and what was on its way arrives."""

from __future__ import annotations

import asyncio
import contextlib
import re

from tests.support.cluster import Cluster, owned_by
from tests.support.eventually import eventually_told
from tests.support.subscriber import Document
from tests.support.system import Server

BOTH = ("comet-1", "comet-2")
# One connection a second: the last of some wait for as long as a test needs.
SLOWLY = {"ENCKE_COMET__CLOSE_PACE_PER_S": "1"}
CROWD = 12


def values(documents: list[Document]) -> list[object]:
    return [document.value["msg"] for document in documents]


async def busy_keys(node: Server) -> int:
    """Keys with a push in progress, as the node says."""
    response = await node.ask("status", "GET", "/metrics")
    found = re.search(rb"^encke_busy_keys (\d+)", response.body, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def test_subscribers_that_wait_to_be_sent_away_get_what_the_new_owner_delivers(
    cluster: Cluster,
) -> None:
    cluster.start(("message", "message-1"), ("web", "web-1"))
    first = cluster.node("comet", "comet-1", environ=SLOWLY)
    await asyncio.to_thread(first.start)
    keys = owned_by(BOTH, "comet-2", CROWD)
    await cluster.wait_owner(keys[0], "comet-1")
    async with contextlib.AsyncExitStack() as crowd:
        # They are closed in the order in which they came, about one a second.
        for key in keys:
            last = await crowd.enter_async_context(first.subscriber("tcp", key, version="2", mid=0))
        assert await cluster.web.push(key, "before", 600) == 0
        second = cluster.node("comet", "comet-2")
        await asyncio.to_thread(second.start)
        await cluster.wait_owner(key, "comet-2")
        for number in range(10):
            assert await cluster.web.push(key, number, 600 * (number % 2)) == 0
        documents = await last.documents(11)
        assert values(documents) == ["before", *range(10)]
        mids = [document.mid for document in documents]
        assert mids == sorted(set(mids))
        # Where it goes when it is sent away it finds the rest, and nothing again.
        async with second.subscriber("tcp", key, version="2", mid=last.last_mid) as moved:
            assert await cluster.web.push(key, "after", 600) == 0
            assert values([await moved.next_document()]) == ["after"]
            assert values([await last.next_document()]) == ["after"]


async def test_what_an_owner_that_leaves_had_accepted_reaches_subscribers_of_the_next_one(
    cluster: Cluster,
) -> None:
    cluster.start(("message", "message-1"), ("comet", "comet-1"), ("comet", "comet-2"), ("web", "web-1"))
    key = owned_by(BOTH, "comet-1", 1)[0]
    await cluster.wait_owner(key, "comet-1")
    first, second, store = (cluster.nodes[name] for name in ("comet-1", "comet-2", "message-1"))
    store.freeze()
    try:
        push = asyncio.create_task(cluster.web.push(key, "accepted", 600))

        async def is_busy() -> bool:
            return await busy_keys(first) == 1

        await eventually_told(is_busy)
        first.terminate()
        await cluster.wait_owner(key, "comet-2")
        # Without a mid: nothing is read for it when it comes.
        async with second.subscriber("tcp", key, version="1.0") as bob:
            store.thaw()
            assert values([await bob.next_document()]) == ["accepted"]
            assert await push == 0
    finally:
        store.thaw()
    assert await asyncio.to_thread(first.wait) == 0
