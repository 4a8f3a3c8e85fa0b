"""CometService and HandoverService over RPC: the method tables, and a stub for one comet node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.contracts.comet import CometService, CometStatus, ConnectionInfo, Push, PushReply
from cluster.contracts.handover import Forward, HandoverService, Held
from cluster.model import Epoch, Key
from cluster.rpc.client import RpcClient
from cluster.rpc.methods import Method, Route

SERVICE = "comet"

# The numbers are on the wire: they stay, and are not given to others.
PUSH = Method(1, "push", tuple[Push], PushReply)
DELETE_KEY = Method(2, "delete_key", tuple[Key, Epoch], int)
CONNECTIONS = Method(3, "connections", tuple[Key], list[ConnectionInfo], is_read=True)
STATUS = Method(4, "status", tuple[()], CometStatus, is_read=True)

FORWARD = Method(11, "forward", tuple[Forward], Held)
CLOSE_KEY = Method(12, "close_key", tuple[Key], Held)
STILL_SAVING = Method(13, "still_saving", tuple[Epoch], list[Key], is_read=True)
RELEASE = Method(14, "release", tuple[Epoch], bool, is_read=True)


# A push is waited for beyond its own time, so that the comet node's word on each key still arrives.
PUSH_GRACE_S = 0.25
# Everything else.
OTHER_S = 5.0


def comet_routes(
    service: CometService, *, push: Callable[[Push], asyncio.Future[PushReply]] | None = None
) -> list[Route]:
    """What a server needs to serve any implementation.

    Args:
        push: what the service's own would only call.
    """
    return [
        Route(PUSH, push or service.push),
        Route(DELETE_KEY, service.delete_key),
        Route(CONNECTIONS, service.connections),
        Route(STATUS, service.status),
    ]


def handover_routes(service: HandoverService) -> list[Route]:
    """The same for what comet nodes ask of each other."""
    return [
        Route(FORWARD, service.forward),
        Route(CLOSE_KEY, service.close_key),
        Route(STILL_SAVING, service.still_saving),
        Route(RELEASE, service.release),
    ]


class CometStub:
    """A comet node at the other end of a client. Implements CometService and HandoverService."""

    def __init__(self, client: RpcClient) -> None:
        """The client's owner starts and stops it."""
        self.client = client

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        """See CometService.push(). InDoubtError: the answer was lost, the push may be done."""
        return self.client.call(PUSH, (push,), push.timeout_s + PUSH_GRACE_S)

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        """See CometService.delete_key(). InDoubtError: the answer was lost."""
        return await self.client.call(DELETE_KEY, (key, epoch), OTHER_S)

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        """See CometService.connections()."""
        return await self.client.call(CONNECTIONS, (key,), OTHER_S)

    async def status(self) -> CometStatus:
        """See CometService.status()."""
        return await self.client.call(STATUS, (), OTHER_S)

    def forward(self, message: Forward) -> asyncio.Future[Held]:
        """See HandoverService.forward()."""
        return self.client.call(FORWARD, (message,), OTHER_S)

    def close_key(self, key: Key) -> asyncio.Future[Held]:
        """See HandoverService.close_key()."""
        return self.client.call(CLOSE_KEY, (key,), OTHER_S)

    async def still_saving(self, epoch: Epoch) -> list[Key]:
        """See HandoverService.still_saving()."""
        return await self.client.call(STILL_SAVING, (epoch,), OTHER_S)

    async def release(self, epoch: Epoch) -> bool:
        """See HandoverService.release()."""
        return await self.client.call(RELEASE, (epoch,), OTHER_S)
