"""What a comet node counts. One place for the names; see docs/behaviour.md."""

from __future__ import annotations

from cluster.stats import Stats


class CometMetrics:
    """Counters of one comet node, registered under their public names."""

    def __init__(self, stats: Stats) -> None:
        self.pushes = stats.counter("pushes_total", "Keys pushed to, by result.", "result")
        # The hot path keeps the child and adds to it.
        self.pushed = self.pushes.child("ok")
        self.deliveries = stats.counter("deliveries_total", "Messages accepted by connections.")
        self.push_seconds = stats.histogram(
            "push_seconds", "From a push's arrival at the comet node to the last write."
        )
        self.save_seconds = stats.histogram("save_seconds", "From asking to save a batch to its answer.")
        self.in_doubt = stats.counter("saves_in_doubt_total", "Batches whose answer was lost.")
        self.closes = stats.counter("closes_total", "Ended connections, by reason.", "reason")
        self.refusals = stats.counter("refusals_total", "Subscriptions not accepted, by reason.", "reason")
        # Every message that somebody online did not get from us is counted here (expire 0 too), as far
        # as this process can know: not what the kernel had taken.
        self.drops = stats.counter(
            "drops_total", "Messages not delivered to a connection, by reason.", "reason"
        )
        self.acknowledgements_refused = stats.counter(
            "acknowledgements_refused_total", "Acknowledgements not remembered, by reason.", "reason"
        )
        self.resumes = stats.counter("resumes_total", "Connections that asked for stored messages.")
        self.gaps = stats.counter("gaps_total", "Gaps announced to connections.")
        self.holes = stats.counter("holes_filled_total", "Times a channel read the store to stay in order.")
        self.forwards = stats.counter(
            "forwards_total", "Messages for connections that earlier owners still hold, by result.", "result"
        )
        self.second_reads = stats.counter(
            "second_reads_total", "Gained keys read again after their earlier owners were done."
        )
