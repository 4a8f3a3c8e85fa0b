"""cluster/stats.py."""

from __future__ import annotations

import pytest

from cluster.stats import Counter, Family, Histogram, HistogramReading, Kind, LabelledCounter, Stats


def test_counter_grows_by_call_and_by_attribute() -> None:
    counter = Counter()
    counter.inc()
    counter.inc(3)
    counter.value += 1
    assert counter.value == 5


def test_labelled_counter_counts_each_value_and_their_sum() -> None:
    counter = LabelledCounter()
    counter.inc("ok", 2)
    counter.inc("failed")
    counter.child("ok").value += 1
    assert {name: child.value for name, child in counter.children.items()} == {"ok": 3, "failed": 1}
    assert counter.value == 4


def test_histogram_puts_a_value_on_a_bound_below_it_and_a_large_one_above_all() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    histogram.observe(1.5)
    histogram.observe(1.5)
    histogram.observe(9.0)
    assert histogram.counts == [1, 2, 1]
    assert histogram.sum == 13.0
    assert histogram.count == 4


@pytest.mark.parametrize(("q", "bound"), [(0.25, 1.0), (0.5, 2.0), (0.75, 2.0), (1.0, float("inf"))])
def test_quantile_is_the_upper_bound_of_its_range(q: float, bound: float) -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.5, 1.6, 9.0):
        histogram.observe(value)
    assert histogram.quantile(q) == bound


def test_quantile_of_nothing_is_zero() -> None:
    assert Histogram((1.0,)).quantile(0.99) == 0.0


@pytest.mark.parametrize("bounds", [(), (2.0, 1.0), (1.0, 1.0)])
def test_histogram_refuses_bounds_that_do_not_ascend(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Histogram(bounds)


def test_asking_twice_for_a_counter_or_histogram_gives_the_same_one() -> None:
    stats = Stats()
    assert stats.counter("a_total", "a") is stats.counter("a_total", "a")
    assert stats.counter("b_total", "b", label="why") is stats.counter("b_total", "b", label="why")
    assert stats.histogram("c_seconds", "c") is stats.histogram("c_seconds", "c")


def test_a_name_keeps_its_kind_and_label_and_a_gauge_has_one_owner() -> None:
    stats = Stats()
    stats.counter("a", "a")
    with pytest.raises(ValueError, match="already"):
        stats.counter("a", "a", label="why")
    with pytest.raises(ValueError, match="already"):
        stats.histogram("a", "a")
    with pytest.raises(ValueError, match="already"):
        stats.gauge("a", "a", lambda: 1.0)
    with pytest.raises(ValueError, match="already"):
        stats.gauges("a", "a", "why", dict)


def test_snapshot_reads_everything_at_that_moment() -> None:
    stats = Stats()
    stats.counter("a_total", "an a").inc(2)
    stats.counter("b_total", "a b", label="why").inc("x")
    stats.histogram("c_seconds", "a c", (1.0,)).observe(0.5)
    level = [3.0]
    stats.gauge("d", "a d", lambda: level[0])
    stats.gauges("e", "an e", "kind", lambda: {"ws": 1, "tcp": 2})

    families = stats.snapshot()
    level[0] = 4.0

    assert families == [
        Family("a_total", "an a", Kind.COUNTER, "", {"": 2}),
        Family("b_total", "a b", Kind.COUNTER, "why", {"x": 1}),
        Family("c_seconds", "a c", Kind.HISTOGRAM, "", {"": HistogramReading((1.0,), (1, 0), 0.5)}),
        Family("d", "a d", Kind.GAUGE, "", {"": 3.0}),
        Family("e", "an e", Kind.GAUGE, "kind", {"ws": 1, "tcp": 2}),
    ]
    assert stats.snapshot()[3].readings == {"": 4.0}
