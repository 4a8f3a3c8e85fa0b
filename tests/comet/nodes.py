"""What the tests of the comet node's core share: a node behind a bad way, pushes, subscribers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.contracts.comet import Push, PushReply
from cluster.contracts.message import MessageService, SaveBatch, SaveItem
from cluster.model import Key
from tests.support.comet import Comet, running_comet
from tests.support.messages import BadWay
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
    ) -> asyncio.Future[PushReply]:
        """Push a JSON value; an id that is given is a caller's own."""
        self._ids += 1
        own_id = f"id-{self._ids}" if has_id else ""
        names = [keys] if isinstance(keys, str) else keys
        return self.node.push(
            Push(
                [Key(name) for name in names],
                json.dumps(value).encode(),
                expire_s,
                push_id or own_id,
                3600 if push_id else 0,
                timeout_s,
                (0, 0),
            )
        )

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


def values(documents: list[Any]) -> list[Any]:
    """The payloads of received messages."""
    return [document.value["msg"] for document in documents]
