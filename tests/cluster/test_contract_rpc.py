"""The contracts over RPC: complete tables, values that arrive whole, old nodes beside new ones."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import pytest

from cluster.contracts import comet_rpc, message_rpc
from cluster.contracts.comet import CometService, CometStatus, ConnectionInfo, Failure, Push, PushReply
from cluster.contracts.comet_rpc import CometStub, CometTimeouts, comet_routes, handover_routes
from cluster.contracts.handover import Forward, HandoverService, Held
from cluster.contracts.message import (
    Guarantee,
    MessageNodeService,
    MessageService,
    MessageStatus,
    Outcome,
    Page,
    SaveBatch,
    SaveItem,
    SaveReply,
    SaveResult,
    Stored,
)
from cluster.contracts.message_rpc import (
    MessageNodes,
    MessageStub,
    MessageTimeouts,
    message_node_routes,
    message_routes,
)
from cluster.errors import DeadlinePassedError, InDoubtError, NotOwnerError, UnavailableError
from cluster.model import Epoch, Key, Message, Mid, StoreServer
from cluster.rpc.balancer import Balancer
from cluster.rpc.client import RpcClient
from cluster.rpc.methods import Method, Route
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import QUICK, error_of
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy, Way

V = TypeVar("V")

BOB = Key("bob")
CLOCK = Mid(17_000_000_000_000_000)
SERVER = StoreServer("redis://a:6379/0", 2, CLOCK)
BATCH = SaveBatch(BOB, [SaveItem("id-1", b'{"n":1}', 600, 60)], Mid(80), CLOCK)
REPLY = SaveReply([SaveResult(Outcome.REPEATED, Mid(160), Mid(80))], CLOCK)
PAGE = Page([Message(Mid(80), b"[1]", 1_900_000_000)], True, Mid(40), CLOCK)
STORED = Stored(1, 3, Mid(80), Mid(80), {"": Mid(80), "phone": Mid(0)})
GUARANTEE = Guarantee("redis", "redis://h:6379/0", "none", "much may be lost", "mend it")
MESSAGE_STATUS = MessageStatus([GUARANTEE], 2, 3)
PUSH = Push([BOB, Key("alice \u2028 \U0001f41f")], b'{"n":1}', 600, "id-1", 3600, 20.0, (5, 2**40))
PUSHED = PushReply([Mid(80), Mid(0)], [2, 0], [Failure(1, "storage")], [0])
FORWARD = Forward(BOB, Mid(160), b'{"n":1}', True, Mid(80))
HELD = Held((5, 2**40), 2)
CONNECTION = ConnectionInfo("tcp", "phone", 1.5, "127.0.0.1:1", 7, Mid(80))


class Messages:
    """A message node that answers fixed values and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.save_result: asyncio.Future[SaveReply] | None = None
        self.error: Exception | None = None

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        self.asked.append(("save", batch))
        if self.save_result is not None:
            return self.save_result
        future: asyncio.Future[SaveReply] = asyncio.get_running_loop().create_future()
        future.set_result(REPLY) if self.error is None else future.set_exception(self.error)
        return future

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        return self._answer(PAGE, "load_after", key, after, max_messages, max_bytes)

    async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
        return self._answer(None, "acknowledge", key, device, mid)

    async def acknowledged(self, key: Key, device: str) -> Mid:
        return self._answer(Mid(80), "acknowledged", key, device)

    async def delete_key(self, key: Key) -> int:
        return self._answer(3, "delete_key", key)

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        return self._answer(True, "delete_message", key, mid)

    async def inspect(self, key: Key) -> Stored:
        return self._answer(STORED, "inspect", key)

    async def clock(self) -> Mid:
        return self._answer(CLOCK, "clock")

    async def clocks(self) -> list[StoreServer]:
        return self._answer([SERVER], "clocks")

    async def is_fenced(self, incarnation: str) -> bool:
        return self._answer(True, "is_fenced", incarnation)

    def _answer(self, value: V, *asked: Any) -> V:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return value


class Comet:
    """A comet node likewise."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.push_result: asyncio.Future[PushReply] | None = None

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        self.asked.append(("push", push))
        self.push_result = asyncio.get_running_loop().create_future()
        return self.push_result

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        self.asked.append(("delete_key", key, epoch))
        return 3

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        self.asked.append(("connections", key))
        return [CONNECTION]

    async def status(self) -> CometStatus:
        self.asked.append(("status",))
        return CometStatus(1, 2, 3)


class Handover:
    """A comet node as others see it, likewise."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def forward(self, message: Forward) -> asyncio.Future[Held]:
        return self._held("forward", message)

    def close_key(self, key: Key) -> asyncio.Future[Held]:
        return self._held("close_key", key)

    async def settle(self, epoch: Epoch) -> list[Key]:
        self.asked.append(("settle", epoch))
        return [BOB]

    async def release(self, epoch: Epoch) -> bool:
        self.asked.append(("release", epoch))
        return True

    def _held(self, *asked: Any) -> asyncio.Future[Held]:
        self.asked.append(asked)
        future: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        future.set_result(HELD)
        return future


class Node:
    """A service behind a server and a proxy, and the client that calls it."""

    def __init__(self, service: str, routes: list[Route]) -> None:
        self._service = service
        self.server = RpcServer(service, routes, QUICK)

    async def start(self) -> None:
        await self.server.start()
        self.proxy = FaultProxy(self.server.address)
        await self.proxy.start()
        self.client = RpcClient(self.proxy.address, self._service, QUICK)
        self.client.start()
        await eventually(lambda: self.client.is_up)

    async def stop(self) -> None:
        await self.client.stop()
        await self.proxy.stop()
        await self.server.stop(0.0)


@asynccontextmanager
async def started(*nodes: Node) -> AsyncIterator[None]:
    for node in nodes:
        await node.start()
    try:
        yield
    finally:
        for node in nodes:
            await node.stop()


class MessageNode:
    """What a message node says of itself."""

    async def status(self) -> MessageStatus:
        return MESSAGE_STATUS


def message_node(messages: MessageService) -> Node:
    return Node(message_rpc.SERVICE, message_routes(messages))


def message_stub(node: Node, **timeouts: float) -> MessageStub:
    return MessageStub(node.client, MessageTimeouts(**timeouts))


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
        "forward": 11, "close_key": 12, "settle": 13, "release": 14,
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
        stub: CometService = CometStub(node.client, CometTimeouts())

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
        stub: HandoverService = CometStub(node.client, CometTimeouts())

        assert await stub.forward(FORWARD) == HELD
        assert await stub.close_key(BOB) == HELD
        assert await stub.settle((1, 2)) == [BOB]
        assert await stub.release((1, 2)) is True

        assert handover.asked == [
            ("forward", FORWARD),
            ("close_key", BOB),
            ("settle", (1, 2)),
            ("release", (1, 2)),
        ]


async def test_saves_and_pushes_are_futures_without_a_task() -> None:
    comet, messages = Comet(), Messages()
    nodes = Node(comet_rpc.SERVICE, comet_routes(comet)), message_node(messages)
    async with started(*nodes):
        before = asyncio.all_tasks()

        push = CometStub(nodes[0].client, CometTimeouts()).push(PUSH)
        save = message_stub(nodes[1]).save(BATCH)

        assert asyncio.all_tasks() == before
        assert await save == REPLY
        await nodes[0].stop()
        assert type(await error_of(push)) is InDoubtError


# -- what a lost answer means


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


# -- old and new


VALUES = [BATCH, BATCH.items[0], REPLY, REPLY.results[0], PAGE, PAGE.messages[0], STORED]
VALUES += [MESSAGE_STATUS, PUSH, PUSHED, PUSHED.failed[0], CONNECTION, CometStatus(1, 2, 3)]


def newer(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The struct as a later version may have it: with two more fields at its end."""
    own = [
        (f.name, f.type) if f.required else (f.name, f.type, msgspec.field(default=f.default))
        for f in msgspec.structs.fields(kind)
    ]
    more: list[Any] = [("later", str, "unknown"), ("latest", list[int], ())]
    return msgspec.defstruct(f"Newer{kind.__name__}", [*own, *more], array_like=True, frozen=True)


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


# -- all message nodes as one


def balanced(*nodes: Node) -> tuple[MessageNodes, Balancer[MessageStub]]:
    balancer = Balancer[MessageStub]()
    balancer.replace({f"message-{n}": (message_stub(node), 1) for n, node in enumerate(nodes)})
    return MessageNodes(balancer), balancer


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
