"""Whether a Redis server can be connected to."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Outage:
    """Whether a server can be connected to; its links share one, so that an outage is logged once."""

    def __init__(self, name: str) -> None:
        """Make it for a server that has not been asked yet."""
        self._name = name
        # Why connecting has failed, once that was logged; empty when it is up.
        self.reason = ""

    def begin(self, reason: str) -> None:
        """A link has failed to connect."""
        if not self.reason:
            self.reason = reason
            _log.error(
                "redis does not answer, messages of its keys are not stored: %s: %s", self._name, reason
            )

    def end(self) -> None:
        """A link has connected."""
        if self.reason:
            self.reason = ""
            _log.info("redis is back: %s", self._name)
