"""Deletes keys: what is stored, what is connected, what is remembered of them."""

from __future__ import annotations

import asyncio

from cluster.contracts.message import MessageService
from cluster.errors import UnavailableError
from cluster.model import Key
from comet.codec.protocol import CloseReason
from comet.pushing.forwarding import Forwarder
from comet.pushing.push import Pusher
from comet.subscribers.acknowledgements import Acknowledgements
from comet.subscribers.hub import Hub

# A deletion waits so long for earlier owners of the key to close what they still hold.
CLOSE_ELSEWHERE_S = 1.0


class Deleter:
    """Deletes for the owner of a key, and closes for it where the key was before."""

    def __init__(
        self,
        messages: MessageService,
        hub: Hub,
        pusher: Pusher,
        acknowledgements: Acknowledgements,
        forwarder: Forwarder | None,
        store_timeout_s: float,
    ) -> None:
        self._messages = messages
        self._hub = hub
        self._pusher = pusher
        self._acknowledgements = acknowledgements
        self._forwarder = forwarder
        self._store_timeout_s = store_timeout_s

    async def delete_key(self, key: Key) -> int:
        """Delete a key at its turn; how many messages were stored.

        Cancellation: the deletion itself runs to its end.

        Raises:
            OverloadedError: too much waits for the key already.
            UnavailableError: the store did not answer in time, or the node was stopped.
            Whatever the store answers.
        """
        deleted = 0

        async def turn() -> None:
            nonlocal deleted
            self._acknowledgements.forget(key)
            async with asyncio.timeout(self._store_timeout_s):
                deleted = await self._messages.delete_key(key)
            await self.close_key(key)
            if self._forwarder is not None and self._forwarder.is_active:
                await self._forwarder.close_key(key, CLOSE_ELSEWHERE_S)

        try:
            await self._pusher.run_exclusive(key, turn)
        except TimeoutError as error:
            raise UnavailableError("the store did not answer in time") from error
        return deleted

    async def close_key(self, key: Key) -> None:
        """Close the connections of a key that the store has deleted. A turn of the key that never waits."""
        self._hub.close_key(key, CloseReason.DELETED)
        # Before anything else runs: a connection that closes hurries its acknowledgement to the
        # store, and what has come while the store was deleting would be there for ever.
        self._acknowledgements.forget(key)
