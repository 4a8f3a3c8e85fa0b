"""The conformance suite of stores, once more with a message node's RPC in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.contracts.message_rpc import SERVICE, MessageStub, MessageTimeouts, message_routes
from cluster.model import Key, Mid
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.server import RpcServer
from message.storage.base import MessageStore
from tests.message.storage.store_suite import Harness, Limits, StoreSuite
from tests.message.storage.test_conformance import EmbeddedHarness


class RemoteStore(MessageStub):
    """A store that is asked over RPC. Its life, which no contract carries, is asked directly."""

    def __init__(self, client: RpcClient, server: RpcServer, store: MessageStore) -> None:
        super().__init__(client, MessageTimeouts(save_s=20.0, other_s=20.0))
        self._server = server
        self._store = store

    async def stop(self) -> None:
        """Stop as nodes do: the caller, the server, the store."""
        await self.client.stop(20.0)
        await self._server.stop(20.0)
        await self._store.stop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class RpcHarness:
    """A backend's harness behind a server and a client."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._server: RpcServer | None = None
        self._client: RpcClient | None = None

    async def open(self, limits: Limits | None = None) -> MessageStore:
        await self._stop()
        store = await self._harness.open(limits)
        self._server = RpcServer(SERVICE, message_routes(store), RpcConfig())
        await self._server.start()
        self._client = RpcClient(self._server.address, SERVICE, RpcConfig())
        self._client.start()
        remote: Any = RemoteStore(self._client, self._server, store)
        return remote  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._stop()
        await self._harness.close()

    def advance(self, seconds: float) -> None:
        self._harness.advance(seconds)

    def damage(self, key: Key, mid: Mid) -> None:
        self._harness.damage(key, mid)

    def left_out(self) -> int:
        return self._harness.left_out()

    async def _stop(self) -> None:
        if self._client is not None:
            await self._client.stop()
        if self._server is not None:
            await self._server.stop(0.0)


class TestEmbeddedStoreOverRpc(StoreSuite):
    """SQLite, at the other end of a connection."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return RpcHarness(EmbeddedHarness(tmp_path / "data"))
