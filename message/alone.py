"""Makes sure that a message node with an embedded store is the only one.

Two embedded stores would each have a part of every key's messages. Another
entry in the registry may be a node that serves; or it is what a node left
behind that was killed, perhaps this one's predecessor on another port, and
goes by itself when its session ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from cluster.contracts.message_rpc import SERVICE, MessageStub, MessageTimeouts
from cluster.errors import ConfigError, EnckeError, UnavailableError
from cluster.members import Members
from cluster.model import NodeInfo, NodeKind
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.metrics import ClientMetrics

log = logging.getLogger(__name__)

# For the registry to tell who is there.
NOTICE_S = 2.0
# Between two looks whether another one serves.
LOOK_S = 0.25
# For an answer of another one: it does nothing for it but read a clock.
ANSWER_S = 2.0
# The registry may take longer than the session timeout to end a session; ZooKeeper rounds it up.
SESSIONS_WAITED = 2
EXTRA_S = 5.0


class Solitude:
    """What a node knows about others of its kind."""

    def __init__(
        self,
        members: Members,
        own: Mapping[str, tuple[str, ...]],
        rpc: RpcConfig,
        metrics: ClientMetrics | None = None,
    ) -> None:
        """Look at nothing yet.

        Args:
            own: addresses that this node announces. An entry with the same ones is its predecessor's.
            rpc: how others are called.
            metrics: counts these calls among those of the process.
        """
        self._members = members
        self._own = own
        self._rpc = rpc
        self._metrics = metrics

    async def wait(self, session_timeout_s: float) -> None:
        """Return when no other message node is registered; wait for the entry of a dead one to end.

        Cancelling is safe.

        Raises:
            ConfigError: another one serves, or is still registered when a dead one would not be.
        """
        # Before, nobody seems to be there.
        await self._members.wait_known()
        other = await self._look()
        if other is None:
            return
        log.warning(
            "waiting until the registration of another message node ends: node=%s peer=%s",
            other.name,
            _where(other),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SESSIONS_WAITED * session_timeout_s + EXTRA_S):
                while other is not None and not await self._serves(other):
                    await asyncio.sleep(LOOK_S)
                    other = await self._look()
        _refuse(other)

    async def check(self) -> None:
        """Refuse if another one has come.

        Raises:
            ConfigError: there is one.
        """
        _refuse(await self._look())

    async def _look(self) -> NodeInfo | None:
        """Another message node that is registered, if there is one."""
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                await self._members.refresh()
        others = self._members.current.of_kind(NodeKind.MESSAGE)
        return next(
            (node for node in others if node.addresses.get("rpc") and node.addresses != self._own), None
        )

    async def _serves(self, node: NodeInfo) -> bool:
        """Whether it answers: a dead one does not."""
        client = RpcClient(_where(node), SERVICE, self._rpc, metrics=self._metrics)
        client.start()
        try:
            async with asyncio.timeout(ANSWER_S):
                await MessageStub(client, MessageTimeouts()).clock()
        except (EnckeError, TimeoutError) as error:
            log.debug("another message node does not answer: node=%s reason=%r", node.name, error)
            return False
        finally:
            await client.stop()
        return True


def _refuse(other: NodeInfo | None) -> None:
    if other is not None:
        fault = f"the embedded store allows one message node, and {other.name} is at {_where(other)}"
        raise ConfigError([f"message.store: {fault}: choose redis or mysql for all"])


def _where(node: NodeInfo) -> str:
    """Where it is called; the registry lists none without."""
    return node.addresses["rpc"][0]
