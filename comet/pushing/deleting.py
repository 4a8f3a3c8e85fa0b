"""Deletes keys: what is stored, what is connected, what is remembered of them."""

from __future__ import annotations

import asyncio
import logging

from cluster.contracts.message import MessageService
from cluster.errors import EnckeError, UnavailableError
from cluster.model import Key
from comet.codec.protocol import CloseReason
from comet.pushing.forwarding import Forwarder
from comet.pushing.push import Pusher
from comet.subscribers.acknowledgements import Acknowledgements
from comet.subscribers.hub import Hub

log = logging.getLogger(__name__)

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
            InDoubtError: it was stopped in the middle of it.
            EnckeError: whatever else the store answers. Of a bug, which is told in the log, no details.
        """
        deleted = 0

        async def turn() -> None:
            nonlocal deleted
            try:
                deleted = await self._delete(key)
            except EnckeError:
                raise
            except TimeoutError as error:
                raise UnavailableError("the store did not answer in time") from error
            except Exception as error:
                # Here, because nobody may be waiting any more. A caller in this process is told what
                # one in another is.
                log.exception("deletion failed: key=%s", key)
                raise EnckeError("the deletion has failed") from error

        await self._pusher.run_exclusive(key, turn)
        return deleted

    async def _delete(self, key: Key) -> int:
        self._acknowledgements.forget(key)
        async with asyncio.timeout(self._store_timeout_s):
            deleted = await self._messages.delete_key(key)
        await self.close_key(key)
        if self._forwarder is not None and self._forwarder.is_active:
            await self._forwarder.close_key(key, CLOSE_ELSEWHERE_S)
        return deleted

    async def close_key(self, key: Key) -> None:
        """Close the connections of a key that the store has deleted. A turn of the key that never waits."""
        self._hub.close_key(key, CloseReason.DELETED)
        # Before anything else runs: a connection that closes hurries its acknowledgement to the
        # store, and what has come while the store was deleting would be there for ever.
        self._acknowledgements.forget(key)
