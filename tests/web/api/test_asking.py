"""web/api/asking.py: what is read while no message node takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from cluster.contracts.message import Page
from cluster.contracts.message_rpc import CLOCK, DELETE_MESSAGE, LOAD_AFTER, SERVICE, MessageTimeouts
from cluster.errors import EnckeError, InDoubtError, OverloadedError, StorageError, UnavailableError
from cluster.members import Members
from cluster.model import Key, Message, Mid, NodeInfo, NodeKind, NodeName
from cluster.peers import MessagePeers
from cluster.registry.base import Registration
from cluster.registry.memory import MemoryRegistry
from cluster.rpc.methods import Route
from cluster.rpc.server import RpcServer
from tests.cluster.rpc_nodes import QUICK
from tests.support.eventually import eventually
from tests.support.http import Response
from tests.support.web import Web, running_web
from web.api.asking import StoreQuestions


class Node:
    """A message node that answers, or refuses, what is read and removed."""

    def __init__(self, refusal: EnckeError | None = None) -> None:
        self.refusal = refusal
        self.asked = 0

    def routes(self) -> list[Route]:
        return [
            Route(CLOCK, self.clock),
            Route(LOAD_AFTER, self.load_after),
            Route(DELETE_MESSAGE, self.delete_message),
        ]

    async def clock(self) -> Mid:
        self._answer()
        return Mid(800)

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        self._answer()
        return Page([Message(Mid(80), b"1", 0)], False, Mid(0), Mid(800))

    async def delete_message(self, key: Key, mid: Mid) -> bool:
        self._answer()
        return True

    def _answer(self) -> None:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal


class Nodes:
    """Message nodes that come and go."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self._servers: list[RpcServer] = []

    async def add(self, node: Node) -> Registration:
        """Start one and tell everybody."""
        server = RpcServer(SERVICE, node.routes(), QUICK)
        await server.start()
        self._servers.append(server)
        addresses = {"rpc": (server.address,)}
        return await self._registry.register(
            NodeInfo(NodeKind.MESSAGE, NodeName("n"), server.address, addresses)
        )

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(0.0)


@asynccontextmanager
async def web_and_nodes(request_timeout_s: float = 20.0) -> AsyncIterator[tuple[Web, Nodes]]:
    """A web node that calls message nodes over TCP."""
    registry = MemoryRegistry()
    nodes = Nodes(registry)
    peers = MessagePeers(Members(registry), QUICK, MessageTimeouts())
    try:
        async with running_web(
            {}, peers.service, registry=registry, request_timeout_s=request_timeout_s
        ) as web:
            yield web, nodes
    finally:
        await peers.stop()
        await nodes.stop()


async def ask(web: Web, method: str, target: str) -> Response:
    return await web.ask("admin" if target.startswith("/2/admin") else "public", method, target)


QUESTIONS = (
    ("GET", "/1/time/get"),
    ("GET", "/1/msg/get?k=k&m=0"),
    ("GET", "/2/admin/keys/k/messages"),
    ("DELETE", "/2/admin/keys/k/messages/80"),
)


async def test_what_is_asked_while_one_node_has_gone_and_the_next_is_not_there_yet_is_answered() -> None:
    for method, target in QUESTIONS:
        async with web_and_nodes() as (web, nodes):
            leaving = Node(UnavailableError("draining"))
            entry = await nodes.add(leaving)
            asking = asyncio.create_task(ask(web, method, target))
            await eventually(lambda node=leaving: node.asked)
            await entry.withdraw()
            await nodes.add(Node())
            response = await asking
            assert response.status == 200, target
            assert response.json.get("ret", 0) == 0, target


async def test_what_no_node_answers_fails_in_time() -> None:
    for method, target in QUESTIONS:
        async with web_and_nodes(request_timeout_s=0.2) as (web, _):
            response = await ask(web, method, target)
            assert response.json.get("ret", 65535) == 65535, target
            assert response.status in (200, 503), target


async def test_what_another_try_cannot_help_is_asked_once() -> None:
    for refusal in (OverloadedError("full"), StorageError("broken")):
        for method, target in QUESTIONS:
            async with web_and_nodes() as (web, nodes):
                node = Node(refusal)
                await nodes.add(node)
                response = await ask(web, method, target)
                assert response.json.get("ret", 65535) == 65535, target
                assert node.asked == 1, (target, refusal)


async def test_only_so_many_wait_for_another_try() -> None:
    is_back = asyncio.Event()
    tries: list[str] = []

    async def question(name: str) -> str:
        tries.append(name)
        if not is_back.is_set():
            raise UnavailableError("no message node is registered")
        return name

    questions = StoreQuestions(20.0, max_waiting=2)
    waiting = [asyncio.create_task(questions.ask(partial(question, name))) for name in "ab"]
    await eventually(lambda: set(tries) == {"a", "b"})
    with pytest.raises(UnavailableError):
        await questions.ask(partial(question, "c"))
    assert tries.count("c") == 1
    is_back.set()
    assert await asyncio.gather(*waiting) == ["a", "b"]
    assert await questions.ask(partial(question, "d")) == "d"


async def test_a_deletion_whose_answer_is_lost_is_not_repeated() -> None:
    async with web_and_nodes() as (web, nodes):
        node = Node(InDoubtError("the commit failed"))
        await nodes.add(node)
        response = await ask(web, "DELETE", "/2/admin/keys/k/messages/80")
        assert (response.status, node.asked) == (504, 1)


async def test_the_time_that_was_heard_last_is_told_without_asking_again() -> None:
    async with web_and_nodes() as (web, nodes):
        node = Node()
        await nodes.add(node)
        first = await web.get("/1/time/get")
        node.refusal = UnavailableError("the store is away")
        assert (await web.get("/1/time/get")).body == first.body
        assert node.asked == 2
