"""What a web node counts. One place for the names; see docs/behaviour.md."""

from __future__ import annotations

from cluster.stats import Stats


class WebMetrics:
    """Counters of one web node, registered under their public names."""

    def __init__(self, stats: Stats) -> None:
        # The label is the path of the route as documented, never one from outside.
        self.requests = stats.counter("http_requests_total", "HTTP requests, by route.", "route")
        self.refusals = stats.counter(
            "http_refusals_total", "HTTP requests turned away before anything was done, by reason.", "reason"
        )
        self.pushes = stats.counter(
            "http_pushes_total", "Push requests and stream lines, by result.", "result"
        )
        # The hot path keeps the children and adds to them.
        self.pushed = self.pushes.child("ok")
        self.pushed_partly = self.pushes.child("partial")
        self.not_pushed = self.pushes.child("failed")
        self.push_seconds = stats.histogram(
            "http_push_seconds", "From a push request's body to the answers of its comet nodes."
        )
        self.retries = stats.counter(
            "http_push_retries_total",
            "Pushes sent again: the ring had changed, or a node was not there or silent.",
        )
        self.errors = stats.counter(
            "http_errors_total", "Requests that failed by our own fault; each is logged."
        )
