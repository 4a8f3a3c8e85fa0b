"""Subscribers that come back to another comet node: from what they acknowledged, and over an explicit gap."""

from __future__ import annotations

from tests.support.cluster import Cluster, owned_by
from tests.support.subscriber import Document, Subscriber, subscribe_tcp

COMETS = ("comet-1", "comet-2")
MOST = 20
# The limit is kept in steps: a key may hold a little more for a while.
SLACK = 1.25


def start(cluster: Cluster) -> str:
    """Start two nodes of each kind whose keys hold few messages; a key of the second comet node."""
    environ = {"ENCKE_MESSAGE__MAX_MESSAGES_PER_KEY": str(MOST)}
    messages = [cluster.node("message", name, environ=environ) for name in ("message-1", "message-2")]
    cluster.start(("comet", "comet-1"), ("comet", "comet-2"), ("web", "web-1"), others=messages)
    return owned_by(COMETS, "comet-2", 1)[0]


async def push(cluster: Cluster, key: str, *values: int) -> None:
    for value in values:
        assert await cluster.web.push(key, value, 600) == 0


def values(documents: list[Document]) -> list[int]:
    return [document.value["msg"] for document in documents]


async def resume(cluster: Cluster, name: str, key: str, mid: int | str) -> Subscriber:
    """Subscribe where the key lives, as soon as it does."""
    await cluster.wait_owner(key, name)
    return await subscribe_tcp(cluster.tcp_of(name), key, version="2", device="phone", mid=mid)


async def test_acknowledged_mid_outlives_the_comet_node_that_took_it(cluster: Cluster) -> None:
    key = start(cluster)
    await push(cluster, key, *range(5))
    phone = await resume(cluster, "comet-2", key, 0)
    documents = await phone.documents(5)
    await phone.acknowledge(documents[2].mid)
    # The end of a connection hurries its acknowledgement; the next one has it from the store.
    await phone.close()
    phone = await resume(cluster, "comet-2", key, "ack")
    assert values(await phone.documents(2)) == [3, 4]
    cluster.nodes["comet-2"].kill()
    await phone.close()

    phone = await resume(cluster, "comet-1", key, "ack")
    await push(cluster, key, 5)
    assert values(await phone.documents(3)) == [3, 4, 5]
    await phone.close()


async def test_gap_is_told_by_the_node_that_has_the_key_after_a_kill(cluster: Cluster) -> None:
    key = start(cluster)
    phone = await resume(cluster, "comet-2", key, 0)
    await push(cluster, key, 0)
    last = (await phone.next_document()).mid
    cluster.nodes["comet-2"].kill()
    await phone.close()
    await cluster.wait_owner(key, "comet-1")
    pushed = range(1, 3 * MOST)
    await push(cluster, key, *pushed)

    phone = await resume(cluster, "comet-1", key, last)
    gap, first = await phone.documents(2)
    assert gap.value == {"gap": {"after": last, "before": first.mid}}
    left = pushed.stop - first.value["msg"]
    assert MOST <= left <= MOST * SLACK
    assert values(await phone.documents(left - 1)) == list(pushed)[-left + 1 :]
    await phone.close()
