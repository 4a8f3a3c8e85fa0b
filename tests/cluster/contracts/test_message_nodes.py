"""All message nodes as one: which is asked, and what another is asked after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.contracts.message import SaveBatch
from cluster.contracts.message_rpc import MessageNodes, MessageStub
from cluster.errors import InDoubtError, OverloadedError, RequestError, UnavailableError
from cluster.model import Key, Mid
from cluster.rpc.balancer import Balancer
from tests.cluster.contracts.nodes import (
    BATCH,
    BOB,
    CLOCK,
    PAGE,
    REPLY,
    SERVER,
    STORED,
    Messages,
    Node,
    message_node,
    message_stub,
    started,
)
from tests.cluster.rpc_nodes import error_of
from tests.support.eventually import DEADLINE_S, eventually
from tests.support.proxy import Way

GONE = "gone-1"
ASKED = ("is_fenced", GONE)

# -- all message nodes as one


def balanced(*nodes: Node, **timeouts: float) -> tuple[MessageNodes, Balancer[MessageStub]]:
    balancer = Balancer[MessageStub]()
    balancer.replace({f"message-{n}": (message_stub(node, **timeouts), 1) for n, node in enumerate(nodes)})
    return MessageNodes(balancer), balancer


@asynccontextmanager
async def three_nodes() -> AsyncIterator[tuple[MessageNodes, list[Messages]]]:
    """Nodes that are waited for long, and what they are asked: in the order in which GONE comes to them."""
    all_messages = [Messages() for _ in range(3)]
    nodes = [message_node(messages) for messages in all_messages]
    async with started(*nodes):
        together, balancer = balanced(*nodes, other_s=60.0)
        clients = [node.client for node in nodes]
        order = [clients.index(stub.client) for stub in balancer.order(GONE)]
        yield together, [all_messages[n] for n in order]


async def test_without_a_message_node_saves_can_be_tried_again_later() -> None:
    nodes, _ = balanced()

    assert type(await error_of(nodes.save(BATCH))) is UnavailableError
    with pytest.raises(UnavailableError, match="no message node"):
        await nodes.clock()


async def test_each_key_has_its_message_node() -> None:
    all_messages = [Messages(), Messages()]
    node_a, node_b = (message_node(messages) for messages in all_messages)
    async with started(node_a, node_b):
        nodes, _ = balanced(node_a, node_b)
        for _ in range(2):
            for n in range(20):
                await nodes.save(SaveBatch(Key(f"key-{n}"), BATCH.items, Mid(0), CLOCK))

        keys = [[asked[1].key for asked in messages.asked] for messages in all_messages]
        assert keys[0]
        assert keys[1]
        assert not set(keys[0]) & set(keys[1])


async def test_loss_of_a_message_node_moves_its_saves_with_the_same_ids() -> None:
    all_messages = [Messages(), Messages()]
    for messages in all_messages:
        messages.save_result = asyncio.get_running_loop().create_future()
    node_a, node_b = (message_node(messages) for messages in all_messages)
    async with started(node_a, node_b):
        nodes, _ = balanced(node_a, node_b)
        first = nodes.save(BATCH)
        await eventually(lambda: any(messages.asked for messages in all_messages))
        lost = 0 if all_messages[0].asked else 1

        (node_a, node_b)[lost].proxy.refuse()
        assert type(await error_of(first)) is InDoubtError
        repeat = nodes.save(BATCH)
        await eventually(lambda: all_messages[1 - lost].asked)

        other = all_messages[1 - lost]
        assert other.asked == [("save", BATCH)]
        assert other.save_result is not None
        other.save_result.set_result(REPLY)
        assert await repeat == REPLY


async def test_what_can_be_asked_again_is_asked_of_another_node_at_once() -> None:
    all_messages = [Messages(), Messages()]
    node_a, node_b = (message_node(messages) for messages in all_messages)
    async with started(node_a, node_b):
        nodes, balancer = balanced(node_a, node_b)
        first = balancer.choose(BOB)
        lost = node_a if first is not None and first.client is node_a.client else node_b
        hung = asyncio.create_task(nodes.load_after(BOB, Mid(0), 1, 1))
        lost.proxy.drop()
        await asyncio.sleep(0)
        lost.proxy.refuse()

        assert await hung == PAGE
        assert await nodes.acknowledged(BOB, "") == 80
        assert await nodes.inspect(BOB) == STORED
        await nodes.acknowledge(BOB, "", Mid(80))
        assert await nodes.clock() == CLOCK
        assert await nodes.clocks() == [SERVER]
        assert await nodes.delete_message(BOB, Mid(80)) is True
        assert await nodes.delete_key(BOB) == 3


@pytest.mark.parametrize("is_alone", [True, False])
async def test_question_that_fails_everywhere_ends_with_the_error(is_alone: bool) -> None:
    messages = Messages()
    messages.error = UnavailableError("busy")
    node_a, node_b = message_node(messages), message_node(messages)
    async with started(node_a, node_b):
        nodes, _ = balanced(node_a) if is_alone else balanced(node_a, node_b)

        with pytest.raises(UnavailableError, match="busy"):
            await nodes.load_after(BOB, Mid(0), 1, 1)


async def test_acknowledgement_in_doubt_is_repeated_on_another_node() -> None:
    all_messages = [Messages(), Messages()]
    for messages in all_messages:
        messages.save_result = asyncio.get_running_loop().create_future()
    node_a, node_b = (message_node(messages) for messages in all_messages)
    async with started(node_a, node_b):
        nodes, balancer = balanced(node_a, node_b)
        first = balancer.choose(BOB)
        lost = node_a if first is not None and first.client is node_a.client else node_b
        lost.proxy.drop(Way.DOWN)
        asked = all_messages[0 if lost is node_a else 1].asked

        acknowledgement = asyncio.create_task(nodes.acknowledge(BOB, "phone", Mid(80)))
        await eventually(lambda: asked)
        lost.proxy.refuse()

        await acknowledgement
        assert [messages.asked for messages in all_messages] == [[("acknowledge", BOB, "phone", 80)]] * 2


async def test_deletion_in_doubt_is_not_repeated() -> None:
    messages = Messages()
    messages.error = InDoubtError("lost")
    node_a, node_b = message_node(messages), message_node(messages)
    async with started(node_a, node_b):
        nodes, _ = balanced(node_a, node_b)

        with pytest.raises(InDoubtError):
            await nodes.delete_key(BOB)
        assert messages.asked == [("delete_key", BOB)]


# -- who is fenced


async def test_one_node_is_asked_who_is_fenced() -> None:
    async with three_nodes() as (nodes, all_messages):
        assert await nodes.is_fenced(GONE)

        assert [messages.asked for messages in all_messages] == [[ASKED], [], []]


async def test_a_node_that_does_not_tell_who_is_fenced_keeps_the_others_from_nothing() -> None:
    async with three_nodes() as (nodes, all_messages):
        for silent in all_messages[:2]:
            silent.tells.clear()

        async with asyncio.timeout(DEADLINE_S):
            assert await nodes.is_fenced(GONE)

        assert [messages.asked for messages in all_messages] == [[ASKED]] * 3


async def test_a_node_that_tells_late_who_is_fenced_is_heard() -> None:
    async with three_nodes() as (nodes, all_messages):
        late, *others = all_messages
        late.tells.clear()
        for other in others:
            other.error = UnavailableError("the store is away")
        question = asyncio.create_task(nodes.is_fenced(GONE))
        await eventually(lambda: all(other.asked for other in others))

        late.tells.set()

        assert await question
        assert [messages.asked for messages in all_messages] == [[ASKED]] * 3


@pytest.mark.parametrize("error", [UnavailableError("busy"), OverloadedError("busy")])
async def test_nobody_is_told_who_is_fenced_when_no_node_can_tell(error: UnavailableError) -> None:
    async with three_nodes() as (nodes, all_messages):
        for messages in all_messages:
            messages.error = error

        with pytest.raises(type(error), match="busy"):
            await nodes.is_fenced(GONE)

        assert [messages.asked for messages in all_messages] == [[ASKED]] * 3


async def test_an_error_that_another_node_would_not_mend_is_told_at_once() -> None:
    async with three_nodes() as (nodes, all_messages):
        all_messages[0].error = RequestError("no incarnation")

        with pytest.raises(RequestError):
            await nodes.is_fenced(GONE)

        assert [messages.asked for messages in all_messages] == [[ASKED], [], []]


async def test_without_a_message_node_nobody_tells_who_is_fenced() -> None:
    nodes, _ = balanced()

    with pytest.raises(UnavailableError, match="no message node"):
        await nodes.is_fenced(GONE)
