"""The contracts over RPC: complete tables, values that arrive whole, old nodes beside new ones."""

from __future__ import annotations

import asyncio
import typing
from typing import Any

import msgspec
import pytest

from cluster.contracts import comet_rpc, message_rpc
from cluster.contracts.comet import CometService, CometStatus
from cluster.contracts.comet_rpc import CometStub, comet_routes, handover_routes
from cluster.contracts.handover import HandoverService
from cluster.contracts.message import MessageNodeService, MessageService, SaveBatch, SaveReply
from cluster.contracts.message_rpc import message_node_routes, message_routes
from cluster.errors import InDoubtError
from cluster.model import Mid
from cluster.rpc.methods import Method, Route
from tests.cluster.contracts.nodes import (
    AWAY,
    BATCH,
    BOB,
    CLOCK,
    CONNECTION,
    FORWARD,
    GUARANTEE,
    HELD,
    MESSAGE_STATUS,
    PAGE,
    PUSH,
    PUSHED,
    REPLY,
    SERVER,
    STORED,
    Comet,
    Handover,
    MessageNode,
    Messages,
    Node,
    message_node,
    message_stub,
    started,
)
from tests.cluster.rpc_nodes import error_of
from tests.support.eventually import eventually

# -- the tables


@pytest.mark.parametrize(
    ("contract", "routes", "module"),
    [
        (MessageService, message_routes(Messages()), message_rpc),
        (MessageNodeService, message_node_routes(MessageNode()), message_rpc),
        (CometService, comet_routes(Comet()), comet_rpc),
        (HandoverService, handover_routes(Handover()), comet_rpc),
    ],
    ids=["message", "message node", "comet", "handover"],
)
def test_method_table_says_what_the_contract_says(contract: type, routes: list[Route], module: Any) -> None:
    table = {route.method.name: route for route in routes}
    assert set(table) == {name for name in vars(contract) if not name.startswith("_") and name.islower()}
    for name, route in table.items():
        hints = typing.get_type_hints(getattr(contract, name))
        answer = hints.pop("return")
        if typing.get_origin(answer) is asyncio.Future:
            (answer,) = typing.get_args(answer)
        twin = Method(route.method.number, name, tuple[tuple(hints.values())], answer)  # type: ignore[misc]
        assert route.method.argument_types == twin.argument_types
        assert route.method.result_type == twin.result_type
        assert getattr(module, name.upper()) is route.method


def test_numbers_on_the_wire_stay() -> None:
    assert {route.method.name: route.method.number for route in message_routes(Messages())} == {
        "save": 1, "load_after": 2, "acknowledge": 3, "acknowledged": 4,
        "delete_key": 5, "delete_message": 6, "inspect": 7, "clock": 8, "is_fenced": 9, "clocks": 11,
    }  # fmt: skip
    assert [route.method.number for route in message_node_routes(MessageNode())] == [10]
    assert {route.method.name: route.method.number for route in comet_routes(Comet())} == {
        "push": 1, "delete_key": 2, "connections": 3, "status": 4,
    }  # fmt: skip
    assert {route.method.name: route.method.number for route in handover_routes(Handover())} == {
        "forward": 11, "close_key": 12, "still_saving": 13, "release": 14,
    }  # fmt: skip


# -- every method


async def test_every_question_to_a_message_node_arrives_and_is_answered() -> None:
    messages = Messages()
    node = message_node(messages)
    async with started(node):
        stub: MessageService = message_stub(node)

        assert await stub.save(BATCH) == REPLY
        assert await stub.load_after(BOB, Mid(40), 10, 1000) == PAGE
        assert await stub.acknowledge(BOB, "phone", Mid(80)) is None  # type: ignore[func-returns-value]
        assert await stub.acknowledged(BOB, "phone") == 80
        assert await stub.delete_key(BOB) == 3
        assert await stub.delete_message(BOB, Mid(80)) is True
        assert await stub.inspect(BOB) == STORED
        assert await stub.clock() == CLOCK
        assert await stub.clocks() == [SERVER]
        assert await stub.is_fenced("old-1") is True

        assert messages.asked == [
            ("save", BATCH),
            ("load_after", BOB, 40, 10, 1000),
            ("acknowledge", BOB, "phone", 80),
            ("acknowledged", BOB, "phone"),
            ("delete_key", BOB),
            ("delete_message", BOB, 80),
            ("inspect", BOB),
            ("clock",),
            ("clocks",),
            ("is_fenced", "old-1"),
        ]


async def test_a_message_node_tells_of_itself() -> None:
    node = Node(message_rpc.SERVICE, message_node_routes(MessageNode()))
    async with started(node):
        assert await message_stub(node).status() == MESSAGE_STATUS


async def test_every_question_to_a_comet_node_arrives_and_is_answered() -> None:
    comet = Comet()
    node = Node(comet_rpc.SERVICE, comet_routes(comet))
    async with started(node):
        stub: CometService = CometStub(node.client)

        push = stub.push(PUSH)
        await eventually(lambda: comet.push_result)
        assert comet.push_result is not None
        comet.push_result.set_result(PUSHED)

        assert await push == PUSHED
        assert await stub.delete_key(BOB, (1, 2)) == 3
        assert await stub.connections(BOB) == [CONNECTION]
        assert await stub.status() == CometStatus(1, 2, 3)
        assert comet.asked == [
            ("push", PUSH),
            ("delete_key", BOB, (1, 2)),
            ("connections", BOB),
            ("status",),
        ]


async def test_every_question_of_a_comet_node_to_another_arrives_and_is_answered() -> None:
    handover = Handover()
    node = Node(comet_rpc.SERVICE, handover_routes(handover))
    async with started(node):
        stub: HandoverService = CometStub(node.client)

        assert await stub.forward(FORWARD) == HELD
        assert await stub.close_key(BOB) == HELD
        assert await stub.still_saving((1, 2)) == [BOB]
        assert await stub.release((1, 2)) is True

        assert handover.asked == [
            ("forward", FORWARD),
            ("close_key", BOB),
            ("still_saving", (1, 2)),
            ("release", (1, 2)),
        ]


async def test_saves_and_pushes_are_futures_without_a_task() -> None:
    comet, messages = Comet(), Messages()
    nodes = Node(comet_rpc.SERVICE, comet_routes(comet)), message_node(messages)
    async with started(*nodes):
        before = asyncio.all_tasks()

        push = CometStub(nodes[0].client).push(PUSH)
        save = message_stub(nodes[1]).save(BATCH)

        assert asyncio.all_tasks() == before
        assert await save == REPLY
        await nodes[0].stop()
        assert type(await error_of(push)) is InDoubtError


# -- old and new


VALUES = [BATCH, BATCH.items[0], REPLY, REPLY.results[0], PAGE, PAGE.messages[0], STORED]
VALUES += [MESSAGE_STATUS, GUARANTEE, AWAY, PUSH, PUSHED, PUSHED.failed[0], CONNECTION, CometStatus(1, 2, 3)]


def newer(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The struct as a later version may have it: with two more fields at its end."""
    own = [
        (f.name, f.type) if f.required else (f.name, f.type, msgspec.field(default=f.default))
        for f in msgspec.structs.fields(kind)
    ]
    more: list[Any] = [("later", str, "unknown"), ("latest", list[int], ())]
    is_array = kind.__struct_config__.array_like
    return msgspec.defstruct(f"Newer{kind.__name__}", [*own, *more], array_like=is_array, frozen=True)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_of_newer_nodes_are_read_by_older_ones_and_the_other_way_round(value: msgspec.Struct) -> None:
    kind = newer(type(value))
    grown = kind(*msgspec.structs.astuple(value), "said", [1])

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grown), type=type(value)) == value
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)
    assert read == kind(*msgspec.structs.astuple(value))


async def test_newer_node_and_older_node_call_each_other() -> None:
    newer_batch: Any = newer(SaveBatch)
    newer_save = Method(message_rpc.SAVE.number, "save", tuple[newer_batch], newer(SaveReply))
    asked: list[Any] = []

    async def save(batch: Any) -> Any:
        asked.append(batch)
        return newer(SaveReply)(REPLY.results, CLOCK, "said")

    messages = Messages()
    old, new = message_node(messages), Node(message_rpc.SERVICE, [Route(newer_save, save)])
    async with started(old, new):
        grown = newer_batch(*msgspec.structs.astuple(BATCH), "said")

        assert await message_stub(new).save(BATCH) == REPLY
        reply: Any = await old.client.call(newer_save, (grown,), 20)

        assert (asked[0].key, asked[0].items, asked[0].later) == (BOB, BATCH.items, "unknown")
        assert messages.asked == [("save", BATCH)]
        assert (reply.results, reply.later) == (REPLY.results, "unknown")
