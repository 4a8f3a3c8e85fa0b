"""Clients for the instances that are alive: made when one appears, retired when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from cluster.rpc.client import RpcClient

# Calls have deadlines of their own; this only bounds the retirement.
RETIRE_S = 60.0


class ClientPool:
    """One client per name."""

    def __init__(self, connect: Callable[[str], RpcClient]) -> None:
        """Start empty.

        Args:
            connect: makes a client for an address; the pool starts and stops it.
        """
        self._connect = connect
        self._clients: dict[str, RpcClient] = {}
        self._retiring: dict[asyncio.Task[None], RpcClient] = {}

    @property
    def clients(self) -> list[RpcClient]:
        """Those of the list, in its order."""
        return list(self._clients.values())

    def replace(self, addresses: Mapping[str, str]) -> dict[str, RpcClient]:
        """Take a new list, name → "host:port"; return the clients by name.

        A client whose address is unchanged stays. The others finish their calls
        in the background.
        """
        old = self._clients
        self._clients = {}
        for name, address in addresses.items():
            kept = old.get(name)
            if kept is not None and kept.address == address:
                self._clients[name] = old.pop(name)
                continue
            client = self._clients[name] = self._connect(address)
            client.start()
        for client in old.values():
            self._retire(client)
        return dict(self._clients)

    async def stop(self) -> None:
        """End all connections; calls in flight fail."""
        retiring = list(self._retiring)
        clients = [*self._clients.values(), *self._retiring.values()]
        self._clients = {}
        await asyncio.gather(*(client.stop() for client in clients))
        # Their calls have just failed, so they have nothing to wait for.
        await asyncio.gather(*retiring)

    def _retire(self, client: RpcClient) -> None:
        task = asyncio.get_running_loop().create_task(client.stop(RETIRE_S))
        self._retiring[task] = client
        task.add_done_callback(self._retiring.pop)
