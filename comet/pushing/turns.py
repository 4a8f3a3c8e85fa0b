"""What takes its turn in the queue of a key, and what all queues of a node share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cluster.contracts.message import MessageService
from cluster.model import Key
from cluster.storeclocks import StoreClocks
from comet.metrics import CometMetrics
from comet.pushing.forwarding import Forwarder
from comet.pushing.pushjob import PushJob
from comet.subscribers.filling import Filler
from comet.subscribers.hub import Hub

# A key's turn in a push: the job and the index of the key in it.
PushTurn = tuple[PushJob, int]
# Something that runs alone, between what came before and what comes after.
ExclusiveTurn = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class QueueContext:
    """What the queues of a node share."""

    messages: MessageService
    hub: Hub
    clocks: StoreClocks
    metrics: CometMetrics
    # How long a read from the store may take.
    store_timeout_s: float
    # This node's registration, for the store's fence; empty = nobody can fence it.
    incarnation: Callable[[], str]
    # Whether this node still owns a key: it may have lost it since a push was accepted.
    owns: Callable[[Key], bool]
    # The store has refused a save because this incarnation is fenced.
    on_fenced: Callable[[str], object]
    # How a channel reads what it has missed.
    filler: Filler
    # Earlier owners of keys; None where keys do not move.
    forwarder: Forwarder | None
    # Runs a coroutine in a task that the pusher owns.
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    # The queue of a key has become empty.
    forget: Callable[[Key], object]

    def must_read(self, key: Key) -> bool:
        """Whether the store must be read for a key before something is delivered that is not stored."""
        forwarder = self.forwarder
        return key in self.hub.doubtful or (
            forwarder is not None and forwarder.is_active and forwarder.must_read(key)
        )
