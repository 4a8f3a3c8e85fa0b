"""How a measurement is told: a small table with the targets beside the figures, and one line of JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# CPU of a send() to each of 10,000 connections in a loop in C, where the targets in us were set. A machine
# that takes longer for the same sends takes longer for everything.
REFERENCE_SEND_US = 5.5
REFERENCE_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity."""

    name: str
    # Every round's value.
    values: tuple[float, ...]
    unit: str
    # The most that it may be; None = told for comparison only.
    target: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        return self.target is None or self.median <= self.target


def figure(name: str, values: Sequence[float], unit: str, target: float | None = None) -> Figure:
    """Make a figure of some rounds."""
    return Figure(name, tuple(values), unit, target)


def in_sends(name: str, values_us: Sequence[float], sends_us: Sequence[float], target_us: float) -> Figure:
    """The same figure and target on any machine: in sends of the loop in C, measured in the same round."""
    ratios = [value / send for value, send in zip(values_us, sends_us, strict=True)]
    return figure(f"{name}, in sends", ratios, "x", target_us / REFERENCE_SEND_US)


def tell(title: str, figures: Sequence[Figure]) -> bool:
    """Print the figures; whether every target is met."""
    print(f"\n{title}")
    width = max(len(f.name) for f in figures)
    print(f"  {'':{width}} {'median':>9} {'min':>9} {'max':>9}  {'unit':<9} target")
    for f in figures:
        goal = "" if f.target is None else f"<= {f.target:.4g} {'ok' if f.is_met else 'MISSED'}"
        span = f"{f.median:9.2f} {min(f.values):9.2f} {max(f.values):9.2f}"
        print(f"  {f.name:{width}} {span}  {f.unit:<9} {goal}")
    line = {
        "title": title,
        "python": platform.python_version(),
        "figures": {
            f.name: {"median": round(f.median, 3), "unit": f.unit, "target": f.target} for f in figures
        },
    }
    print(json.dumps(line), flush=True)
    return all(f.is_met for f in figures)
