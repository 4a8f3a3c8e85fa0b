"""Registries for tests: of several processes on one ZooKeeper, and of several watchers on one in memory."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.base import Registry, SessionState, Snapshot
from cluster.registry.config import RegistrySettings
from cluster.registry.local import LocalRegistry
from cluster.registry.localserver import RegistryServer
from cluster.registry.memory import MemoryRegistry
from cluster.registry.zookeeper import ZooKeeperRegistry
from tests.support.zookeeper import ZooKeeper

# Nobody is taken for dead in a test that is not about that, however busy the machine is.
LONG_SESSION_S = 20.0


def comet(name: str, port: int = 6970, **changed: Any) -> NodeInfo:
    addresses = {"rpc": (f"10.0.0.1:{port}",), "ws": (":6968",), "tcp": (f"push.example:{port - 1}",)}
    info = NodeInfo(
        NodeKind.COMET, NodeName(name), secrets.token_hex(4), addresses, version="1", started_at=5.5
    )
    return replace_info(info, **changed)


def message(name: str, **changed: Any) -> NodeInfo:
    info = NodeInfo(NodeKind.MESSAGE, NodeName(name), secrets.token_hex(4), {"rpc": ("10.0.0.2:8070",)})
    return replace_info(info, **changed)


def web(name: str) -> NodeInfo:
    addresses = {"public": (":8090",), "admin": ("127.0.0.1:8091",)}
    return NodeInfo(NodeKind.WEB, NodeName(name), secrets.token_hex(4), addresses)


def replace_info(info: NodeInfo, **changed: Any) -> NodeInfo:
    return msgspec.structs.replace(info, **changed)


class Seen:
    """What a watcher of a registry has been told."""

    def __init__(self, registry: Registry) -> None:
        self.snapshots: list[Snapshot] = []
        self.states: list[SessionState] = []
        self.unwatch = registry.watch(self.snapshots.append)
        registry.watch_session(self.states.append)

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1] if self.snapshots else Snapshot((0, 0), ())

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.last.nodes]

    @property
    def weights(self) -> list[int]:
        return [node.weight for node in self.last.nodes]


class MemoryHarness:
    """All processes are this one."""

    def __init__(self) -> None:
        self._registry = MemoryRegistry()

    async def connect(self) -> Registry:
        return self._registry

    async def close(self) -> None:
        pass


class LocalHarness:
    """Processes that were started by one that is their registry."""

    def __init__(self) -> None:
        self.server = RegistryServer(generation=7)
        self._registries: list[LocalRegistry] = []

    async def connect(self) -> LocalRegistry:
        """The registry of another process, started."""
        end, _ = self.server.connect()
        registry = LocalRegistry(end, LONG_SESSION_S)
        self._registries.append(registry)
        await registry.start()
        return registry

    async def close(self) -> None:
        for registry in self._registries:
            await registry.stop()
        await self.server.stop()


class ZooKeeperHarness:
    """Registries that share paths of their own on a ZooKeeper."""

    def __init__(self, server: ZooKeeper, **changed: Any) -> None:
        self.server = server
        root = f"/{secrets.token_hex(6)}"
        self.settings = replace(
            RegistrySettings(
                servers=(server.address,),
                comet_path=f"{root}/comet",
                message_path=f"{root}/message",
                web_path=f"{root}/web",
                session_timeout_s=LONG_SESSION_S,
            ),
            **changed,
        )
        self._registries: list[ZooKeeperRegistry] = []

    async def connect(self, **changed: Any) -> ZooKeeperRegistry:
        """The registry of another process, started."""
        registry = ZooKeeperRegistry(replace(self.settings, **changed))
        self._registries.append(registry)
        await registry.start()
        return registry

    async def close(self) -> None:
        for registry in self._registries:
            await registry.stop()


def registry_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and errors of the registry."""
    return [
        r.getMessage() for r in caplog.records if r.name.startswith("cluster.registry") and r.levelno >= 30
    ]
