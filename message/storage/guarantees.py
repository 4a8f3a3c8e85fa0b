"""What the servers of a store promise: kept for who asks, told to the operator when it changes."""

from __future__ import annotations

import logging

from cluster.contracts.message import Guarantee

log = logging.getLogger(__name__)


class Promise:
    """The promise of one server."""

    def __init__(self, first: Guarantee) -> None:
        """Begin with what is known before the server was asked. Not logged."""
        self.current = first
        # The server has answered once.
        self.is_heard = False

    def hear(self, promised: Guarantee) -> None:
        """Take what the server's settings promise now. Any thread; said in the log when it is new."""
        self.is_heard = True
        if promised == self.current:
            return
        self.current = promised
        tell(promised)


def tell(guarantee: Guarantee) -> None:
    """Say it in the log, in one line: a warning when it is weak."""
    words = (guarantee.location, guarantee.durability, guarantee.promise)
    if guarantee.warning:
        log.warning("store %s: %s: %s: %s", *words, guarantee.warning)
    else:
        log.info("store %s: %s: %s", *words)


def one_line(guarantee: Guarantee) -> str:
    """The same for /readyz; of a server that is away that instead."""
    if (away := guarantee.away) is not None:
        return f"store {guarantee.location}: away for {away.for_s:.0f} s: {away.reason}"
    warning = f": {guarantee.warning}" if guarantee.warning else ""
    return f"store {guarantee.location}: {guarantee.durability}: {guarantee.promise}{warning}"
