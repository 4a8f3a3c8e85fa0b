"""What the tests of the comet node's core share: a node behind a bad way, pushes, subscribers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.contracts.comet import CometService, Push, PushReply
from cluster.contracts.comet_rpc import SERVICE, CometStub
from cluster.contracts.handover import HandoverService
from cluster.contracts.message import MessageService, SaveBatch, SaveItem
from cluster.model import Epoch, Key
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from tests.support.comet import Comet, running_comet
from tests.support.messages import BadWay
from tests.support.registry import ShakyRegistry
from tests.support.subscriber import (
    Subscriber,
    TcpSubscriber,
    WebSocketSubscriber,
    subscribe_tcp,
    subscribe_websocket,
)


class Core:
    """A node, the way to its store, and short words for both."""

    def __init__(self, comet: Comet, way: BadWay) -> None:
        self.comet = comet
        self.node = comet.node
        # Who is asked: the node itself, or a stub of it.
        self.service: CometService = self.node
        self.handover: HandoverService = self.node._keys.yielding
        # Of the stub.
        self._client: RpcClient | None = None
        self.way = way
        self._ids = 0
        # Closed at the end of the test.
        self.subscribers: list[Subscriber] = []

    def push(
        self,
        keys: str | list[str],
        value: Any = 1,
        *,
        expire_s: int = 0,
        push_id: str = "",
        timeout_s: float = 10.0,
        has_id: bool = True,
        epoch: Epoch = (0, 0),
    ) -> asyncio.Future[PushReply]:
        """Push a JSON value; an id that is given is a caller's own."""
        self._ids += 1
        own_id = f"id-{self._ids}" if has_id else ""
        names = [keys] if isinstance(keys, str) else keys
        return self.service.push(
            Push(
                [Key(name) for name in names],
                json.dumps(value).encode(),
                expire_s,
                push_id or own_id,
                3600 if push_id else 0,
                timeout_s,
                epoch,
            )
        )

    def call_over_rpc(self) -> RpcClient:
        """Ask the node as another process does from now on; the caller stops the client."""
        self._client = RpcClient(self.node.addresses["rpc"], SERVICE, RpcConfig())
        self._client.start()
        self.service = self.handover = CometStub(self._client)
        return self._client

    async def hang_up(self, *answers: asyncio.Future[Any]) -> None:
        """Be a caller that goes away: it waits for nothing any more, and its connection ends."""
        for answer in answers:
            answer.cancel()
        if self._client is not None:
            await self._client.stop()

    async def save_elsewhere(self, key: str, *values: Any) -> list[int]:
        """Store messages as another node would, past this one."""
        items = []
        for value in values:
            self._ids += 1
            items.append(SaveItem(f"elsewhere-{self._ids}", json.dumps(value).encode(), 600))
        deadline = await self.way.store.clock() + 50_000_000
        reply = await self.way.store.save(SaveBatch(Key(key), items, 0, deadline))  # type: ignore[arg-type]
        return [result.mid for result in reply.results]

    async def subscribe(
        self,
        key: str,
        *,
        version: str = "2.0",
        mid: str | int = "",
        device: str = "",
        receive_buffer_bytes: int = 0,
    ) -> TcpSubscriber:
        """A live TCP subscriber."""
        subscriber = await subscribe_tcp(
            self.comet.tcp,
            key,
            version=version,
            mid=mid,
            device=device,
            receive_buffer_bytes=receive_buffer_bytes,
        )
        self.subscribers.append(subscriber)
        await subscriber.open()
        return subscriber

    async def subscribe_websocket(self, key: str, *, mid: str | int = "") -> WebSocketSubscriber:
        """A live WebSocket subscriber of version 2."""
        subscriber = await subscribe_websocket(self.comet.ws, key, version="2", mid=mid)
        self.subscribers.append(subscriber)
        await subscriber.open()
        return subscriber


@asynccontextmanager
async def running_core(data_dir: Path, **settings: Any) -> AsyncIterator[Core]:
    """Run a node behind a bad way that is good so far; see running_comet() for the settings."""
    ways: list[BadWay] = []

    def way(store: MessageService) -> MessageService:
        ways.append(BadWay(store))
        return ways[0]

    async with running_comet(data_dir, way=way, **settings) as comet:
        core = Core(comet, ways[0])
        try:
            yield core
        finally:
            for subscriber in core.subscribers:
                await subscriber.close()


@asynccontextmanager
async def running_remote_core(data_dir: Path, **settings: Any) -> AsyncIterator[Core]:
    """As running_core(), but the node is asked over RPC, and in a cluster that could take its keys away."""
    async with running_core(data_dir, registry=ShakyRegistry(60.0), rpc=RpcConfig(), **settings) as core:
        client = core.call_over_rpc()
        try:
            yield core
        finally:
            await client.stop()


def values(documents: list[Any]) -> list[Any]:
    """The payloads of received messages."""
    return [document.value["msg"] for document in documents]
