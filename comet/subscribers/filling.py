"""Reads the store for a channel that has missed something, and delivers it in order."""

from __future__ import annotations

import logging
from functools import partial

from cluster.contracts.message import MessageService
from cluster.errors import EnckeError
from cluster.model import Key, Mid
from comet.codec.protocol import CloseReason
from comet.metrics import CometMetrics
from comet.subscribers.hub import Hub
from comet.subscribers.outgoing import Outgoing
from comet.subscribers.reading import read_patiently

log = logging.getLogger(__name__)

PAGE_MESSAGES = 500
PAGE_BYTES = 1024 * 1024


class Filler:
    """The way from the store to a channel. Used at the key's turn only."""

    def __init__(
        self, messages: MessageService, hub: Hub, metrics: CometMetrics, store_timeout_s: float
    ) -> None:
        self._messages = messages
        self._hub = hub
        self._metrics = metrics
        self._store_timeout_s = store_timeout_s

    async def fill(self, key: Key, end: Mid | None, filled: dict[Mid, int] | None = None) -> None:
        """Deliver what is stored above the channel's cursor and below `end`; None = to the last.

        Args:
            filled: gets the mids that were delivered, and to how many connections; also
                those before an error.

        Raises:
            EnckeError, TimeoutError: the store did not answer.
        """
        metrics = self._metrics
        has_more = True
        while has_more and (channel := self._hub.channel(key)) is not None:
            load = partial(self._messages.load_after, key, channel.cursor, PAGE_MESSAGES, PAGE_BYTES)
            page = await read_patiently(load, self._store_timeout_s)
            if page.trimmed > channel.cursor:
                metrics.gaps.inc(channel.announce_gap(page.messages[0].mid if page.messages else None))
            for message in page.messages:
                if end is not None and message.mid >= end:
                    return
                online = channel.deliver(Outgoing(message.mid, message.payload, True))
                metrics.deliveries.value += online
                if filled is not None:
                    filled[message.mid] = online
            has_more = page.has_more

    async def fill_or_close(self, key: Key, end: Mid, filled: dict[Mid, int] | None = None) -> bool:
        """Deliver what another node saved, as fill() does; when that fails, close the key's connections.

        Returns:
            Whether the hole was filled.
        """
        try:
            await self.fill(key, end, filled)
        except Exception as error:
            # A bug, too: what waits behind the hole goes on.
            is_known = isinstance(error, EnckeError | TimeoutError)
            log.log(
                logging.WARNING if is_known else logging.ERROR,
                "hole not filled, connections closed: key=%s reason=%r",
                key,
                error,
                exc_info=None if is_known else error,
            )
            # They can resume; staying would hide the hole.
            self._hub.close_key(key, CloseReason.INTERNAL)
            return False
        self._metrics.holes.inc()
        return True
