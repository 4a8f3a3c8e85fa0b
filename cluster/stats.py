"""Counters, gauges and histograms: plain numbers that the hot paths change and the status port reads.

One event loop changes them, so there are no locks: a foreign thread never
touches them. Counting costs an attribute increment. Knows nothing of the
format of /metrics; see exposition.py.

A `Stats` belongs to one process and is handed to every part by its
constructor. Names carry their unit and no prefix ("saves_total",
"push_seconds"); the exposition adds "encke_".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TypeVar, overload

import msgspec

# Bounds for things that usually take milliseconds: 50 us to 10 s.
SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Counter:
    """A number that only grows. Hot paths write `counter.value += 1` and save the call."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, n: int = 1) -> None:
        """Count n more."""
        self.value += n


class LabelledCounter:
    """One counter per value of a label. The values must come from a small fixed set, never from outside."""

    __slots__ = ("children",)

    def __init__(self) -> None:
        self.children: dict[str, Counter] = {}

    def child(self, label_value: str) -> Counter:
        """The counter of one value, made on first use. Hot paths keep it."""
        counter = self.children.get(label_value)
        if counter is None:
            counter = self.children[label_value] = Counter()
        return counter

    def inc(self, label_value: str, n: int = 1) -> None:
        """Count n more under a value of the label."""
        self.child(label_value).value += n

    @property
    def value(self) -> int:
        """Sum over all values of the label."""
        return sum(child.value for child in self.children.values())


class Histogram:
    """How often a quantity fell into each of some fixed ranges."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Make it empty.

        Args:
            bounds: inclusive upper bounds, ascending; what is above the last is counted apart.
        """
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ValueError("bounds of a histogram must ascend")
        self.bounds = tuple(bounds)
        # One more than bounds: the last is for everything above them.
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one occurrence of a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Upper bound of the range that holds the q-quantile (0 < q <= 1).

        0 when nothing was observed; infinity when it lies above the last bound.
        """
        wanted = q * self.count
        if wanted <= 0:
            return 0.0
        seen = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")


class HistogramReading(msgspec.Struct, frozen=True):
    """A histogram at one moment."""

    bounds: tuple[float, ...]
    # Per range, not cumulative; one more than bounds.
    counts: tuple[int, ...]
    sum: float


class Family(msgspec.Struct, frozen=True):
    """All readings under one name."""

    name: str
    text: str
    kind: Kind
    # Name of the label; empty = there is one reading, under "".
    label: str
    # By value of the label.
    readings: dict[str, float | HistogramReading]


class _Metric(msgspec.Struct, frozen=True):
    name: str
    text: str
    kind: Kind
    label: str
    source: object
    read: Callable[[], dict[str, float | HistogramReading]]


_T = TypeVar("_T", Counter, LabelledCounter, Histogram)


class Stats:
    """Everything that one process counts.

    Asking twice for the same counter or histogram gives the same object, so
    that several parts can count under one name.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}

    @overload
    def counter(self, name: str, text: str) -> Counter: ...

    @overload
    def counter(self, name: str, text: str, label: str) -> LabelledCounter: ...

    def counter(self, name: str, text: str, label: str = "") -> Counter | LabelledCounter:
        """Get or make a counter; with a label, one per value of it. The name should end in "_total"."""
        if label:
            labelled = LabelledCounter()
            return self._add(name, text, Kind.COUNTER, label, labelled, lambda: _read_children(labelled))
        plain = Counter()
        return self._add(name, text, Kind.COUNTER, label, plain, lambda: {"": plain.value})

    def histogram(self, name: str, text: str, bounds: Sequence[float] = SECONDS) -> Histogram:
        """Get or make a histogram. The name should end in its unit ("_seconds", "_bytes")."""
        histogram = Histogram(bounds)
        return self._add(name, text, Kind.HISTOGRAM, "", histogram, lambda: {"": _read_histogram(histogram)})

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Have a number read from its owner whenever somebody looks.

        Raises:
            ValueError: the name is taken; a gauge has one owner.
        """
        self._check_free(name)
        self._metrics[name] = _Metric(name, text, Kind.GAUGE, "", read, lambda: {"": read()})

    def gauges(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """As gauge(), for one number per value of a label.

        Raises:
            ValueError: the name is taken.
        """
        self._check_free(name)
        self._metrics[name] = _Metric(name, text, Kind.GAUGE, label, read, lambda: dict(read()))

    def totals(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """As gauges(), for numbers that only grow. The name should end in "_total".

        Raises:
            ValueError: the name is taken.
        """
        self._check_free(name)
        self._metrics[name] = _Metric(name, text, Kind.COUNTER, label, read, lambda: dict(read()))

    def snapshot(self) -> list[Family]:
        """Read everything, in order of first mention. Calls the gauges' owners."""
        return [Family(m.name, m.text, m.kind, m.label, m.read()) for m in self._metrics.values()]

    def _add(
        self,
        name: str,
        text: str,
        kind: Kind,
        label: str,
        fresh: _T,
        read: Callable[[], dict[str, float | HistogramReading]],
    ) -> _T:
        known = self._metrics.get(name)
        if known is None:
            self._metrics[name] = _Metric(name, text, kind, label, fresh, read)
            return fresh
        if not isinstance(known.source, type(fresh)) or known.label != label:
            raise ValueError(f"{name} is already a {known.kind.value} with label {known.label!r}")
        return known.source

    def _check_free(self, name: str) -> None:
        if name in self._metrics:
            raise ValueError(f"{name} is already in use")


def _read_children(counter: LabelledCounter) -> dict[str, float | HistogramReading]:
    return {label_value: child.value for label_value, child in counter.children.items()}


def _read_histogram(histogram: Histogram) -> HistogramReading:
    return HistogramReading(histogram.bounds, tuple(histogram.counts), histogram.sum)
