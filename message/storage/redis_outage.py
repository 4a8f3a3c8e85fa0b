"""What the operator is told of a Redis server that does not work."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

# Of refusals, one is told in this time: each save of a full server is one.
REFUSALS_S = 60.0


class Outage:
    """What is wrong with a server; its links share one, so that it is logged once."""

    def __init__(self, name: str) -> None:
        """Make it for a server that has not been asked yet."""
        self._name = name
        # Why connecting has failed, once that was logged; empty when it is up.
        self.reason = ""
        # Monotonic seconds before which refusals are not told.
        self._silent_until = 0.0

    def begin(self, reason: str) -> None:
        """A link has failed to connect."""
        if not self.reason:
            self.reason = reason
            log.error(
                "redis does not answer, messages of its keys are not stored: %s: %s", self._name, reason
            )

    def end(self) -> None:
        """A link has connected."""
        if self.reason:
            self.reason = ""
            log.info("redis is back: %s", self._name)

    def tell_refusal(self, words: str, now: float) -> None:
        """The server has refused a call; `now` is the monotonic time."""
        if now < self._silent_until:
            return
        self._silent_until = now + REFUSALS_S
        log.error("redis refuses, perhaps not for the first time: %s: %s", self._name, words)
