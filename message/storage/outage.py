"""What the operator is told of a server of a store: since when it cannot be used, what it refuses."""

from __future__ import annotations

import logging
import threading
import time as clocks
from collections.abc import Callable

import msgspec

from cluster.contracts.message import Away, Guarantee

log = logging.getLogger(__name__)

# Of refusals, one is told in this time: each save of a full or read-only server is one.
REFUSALS_S = 60.0


class Outage:
    """What is wrong with one server. All its connections share one, so that it is told once.

    Any thread begins and ends it, any thread asks.
    """

    def __init__(self, monotonic_s: Callable[[], float] = clocks.monotonic) -> None:
        """Begin with a server that works."""
        self._monotonic_s = monotonic_s
        # When it began, and why it goes on. Replaced whole; None = there is none.
        self._present: tuple[float, str] | None = None

    @property
    def reason(self) -> str:
        """Why the last attempt has failed; empty when there is no outage."""
        present = self._present
        return "" if present is None else present[1]

    def begin(self, reason: str) -> bool:
        """An attempt to use the server has failed; whether it was the first one."""
        present = self._present
        began_at = self._monotonic_s() if present is None else present[0]
        self._present = began_at, reason
        return present is None

    def end(self) -> bool:
        """The server is used; whether it could not be before."""
        present, self._present = self._present, None
        return present is not None

    def mark(self, promise: Guarantee) -> Guarantee:
        """What the server promises, with its outage if there is one."""
        if (present := self._present) is None:
            return promise
        began_at, reason = present
        away = Away(round(self._monotonic_s() - began_at, 3), reason)
        return msgspec.structs.replace(promise, away=away)


class Refusals:
    """What one server refuses. All its connections share one, and any thread tells."""

    def __init__(self, what: str, name: str, monotonic_s: Callable[[], float] = clocks.monotonic) -> None:
        """Begin with a server that has refused nothing: what it is, and its name."""
        self._what = what
        self._name = name
        self._monotonic_s = monotonic_s
        self._silent_until = 0.0
        # Several threads are refused at once.
        self._lock = threading.Lock()

    def tell(self, words: str) -> None:
        """The server has refused with these words."""
        with self._lock:
            now = self._monotonic_s()
            if now < self._silent_until:
                return
            self._silent_until = now + REFUSALS_S
        log.error(
            "%s refuses, perhaps not for the first time: server=%s reason=%s", self._what, self._name, words
        )
