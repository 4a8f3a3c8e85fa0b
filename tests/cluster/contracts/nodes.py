"""Nodes that answer what the contracts ask, scripted; values for every field."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cluster.contracts import message_rpc
from cluster.contracts.comet import CometStatus, ConnectionInfo, Failure, Push, PushReply
from cluster.contracts.handover import Forward, Held
from cluster.contracts.message import (
    Away,
    Guarantee,
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
from cluster.contracts.message_rpc import MessageStub, MessageTimeouts, message_routes
from cluster.model import Epoch, Key, Message, Mid, StoreServer
from cluster.rpc.client import RpcClient
from cluster.rpc.methods import Route
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import QUICK
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy

V = TypeVar("V")

BOB = Key("bob")
CLOCK = Mid(17_000_000_000_000_000)
SERVER = StoreServer("redis://a:6379/0", 2, CLOCK)
BATCH = SaveBatch(BOB, [SaveItem("id-1", b'{"n":1}', 600, 60)], Mid(80), CLOCK)
REPLY = SaveReply([SaveResult(Outcome.REPEATED, Mid(160), Mid(80))], CLOCK)
PAGE = Page([Message(Mid(80), b"[1]", 1_900_000_000)], True, Mid(40), CLOCK)
STORED = Stored(1, 3, Mid(80), Mid(80), {"": Mid(80), "phone": Mid(0)})
AWAY = Away(34.2, "Connection refused")
GUARANTEE = Guarantee("redis", "redis://h:6379/0", "none", "much may be lost", "mend it", AWAY)
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
        # While it is cleared nobody is told who is fenced.
        self.tells = asyncio.Event()
        self.tells.set()

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
        fenced = self._answer(True, "is_fenced", incarnation)
        await self.tells.wait()
        return fenced

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

    async def still_saving(self, epoch: Epoch) -> list[Key]:
        self.asked.append(("still_saving", epoch))
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
