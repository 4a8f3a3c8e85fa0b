"""Saves over RPC whose answer is lost, late or not wanted any more."""

from __future__ import annotations

import asyncio

from cluster.errors import DeadlinePassedError, InDoubtError, NotOwnerError, UnavailableError
from tests.cluster.contracts.nodes import BATCH, REPLY, Messages, message_node, message_stub, started
from tests.cluster.rpc_nodes import error_of
from tests.support.eventually import eventually


async def test_save_whose_answer_is_lost_is_in_doubt_and_goes_on() -> None:
    messages = Messages()
    messages.save_result = asyncio.get_running_loop().create_future()
    node = message_node(messages)
    async with started(node):
        save = message_stub(node).save(BATCH)
        await eventually(lambda: messages.asked)

        node.proxy.cut()

        assert type(await error_of(save)) is InDoubtError
        assert not messages.save_result.done()


async def test_save_without_an_answer_in_time_is_in_doubt_and_goes_on() -> None:
    messages = Messages()
    messages.save_result = asyncio.get_running_loop().create_future()
    node = message_node(messages)
    async with started(node):
        assert type(await error_of(message_stub(node, save_s=0.1).save(BATCH))) is InDoubtError
        assert not messages.save_result.done()


async def test_save_that_was_surely_not_sent_is_not_in_doubt() -> None:
    node = message_node(Messages())
    async with started(node):
        node.proxy.refuse()
        await eventually(lambda: not node.client.is_up and not node.client.is_connecting)

        assert type(await error_of(message_stub(node).save(BATCH))) is UnavailableError


async def test_cancelled_save_goes_on() -> None:
    messages = Messages()
    messages.save_result = asyncio.get_running_loop().create_future()
    node = message_node(messages)
    async with started(node):
        save = message_stub(node).save(BATCH)
        await eventually(lambda: messages.asked)

        save.cancel()
        await eventually(lambda: node.client.in_flight == 1)

        assert not messages.save_result.done()
        messages.save_result.set_result(REPLY)


async def test_errors_of_a_save_arrive_as_their_own() -> None:
    messages = Messages()
    node = message_node(messages)
    async with started(node):
        for error in (DeadlinePassedError("late"), NotOwnerError("fenced"), InDoubtError("disk?")):
            messages.error = error
            assert type(await error_of(message_stub(node).save(BATCH))) is type(error)
