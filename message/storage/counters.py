"""What a store counts, under the names that /metrics shows."""

from __future__ import annotations

from collections.abc import Callable

from cluster.contracts.message import Guarantee, Outcome
from cluster.stats import Stats


class Tally:
    """What a group of saves did, added to the counters once it is committed."""

    __slots__ = ("conflicts", "ignored_sent", "late", "repeated", "saved", "trimmed")

    def __init__(self) -> None:
        self.saved = 0
        self.repeated = 0
        self.conflicts = 0
        # Refused because their deadline had passed.
        self.late = 0
        # Unexpired messages removed to keep a key's limits.
        self.trimmed = 0
        # Batches whose `sent` was too far ahead of the store's clock.
        self.ignored_sent = 0

    def count(self, outcome: Outcome) -> None:
        """Count one item that was answered."""
        if outcome is Outcome.SAVED:
            self.saved += 1
        elif outcome is Outcome.REPEATED:
            self.repeated += 1
        else:
            self.conflicts += 1


def show_state(stats: Stats, queued: Callable[[], int], describe: Callable[[], list[Guarantee]]) -> None:
    """Register the gauges of a store.

    Args:
        queued: saves and changes that wait now.
        describe: MessageStore.describe().
    """
    stats.gauge("store_queued_saves", "Saves and changes that wait for their commit.", queued)
    stats.gauge(
        "store_servers_away",
        "Servers of the store that cannot be used, or take no writes.",
        lambda: sum(server.away is not None for server in describe()),
    )


class StoreCounters:
    """Counters of one store. Changed only on the event loop."""

    def __init__(self, stats: Stats) -> None:
        self.save_seconds = stats.histogram(
            "store_save_seconds", "From asking for a save to its answer, which is durable."
        )
        self.commit_seconds = stats.histogram("store_commit_seconds", "One transaction of the store.")
        results = stats.counter(
            "store_saves_total", "Messages that were to be stored, by what became of them.", "result"
        )
        self.saved = results.child("saved")
        self._repeated = results.child("repeated")
        self._conflicts = results.child("conflict")
        self._late = results.child("late")
        # Refused by the disk, or in doubt.
        self.failed = results.child("failed")
        self._trimmed = stats.counter(
            "store_trimmed_total", "Unexpired messages removed because their key was over its limits."
        )
        self.expired = stats.counter("store_expired_total", "Messages removed because they had expired.")
        self._ignored_sent = stats.counter(
            "store_sent_ignored_total", "Saves whose comet node's clock was too far ahead of the store's."
        )
        self.unreadable = stats.counter(
            "store_unreadable_total",
            "Stored values that were left out of an answer because they are no messages.",
        )

    def add(self, tally: Tally) -> None:
        """Count what a committed group of saves did."""
        self.saved.value += tally.saved
        self._repeated.value += tally.repeated
        self._conflicts.value += tally.conflicts
        self._late.value += tally.late
        self._trimmed.value += tally.trimmed
        self._ignored_sent.value += tally.ignored_sent
