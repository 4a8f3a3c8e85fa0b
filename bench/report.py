"""How a measurement is told: a small table with the targets beside the figures, and one line of JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


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


def tell(title: str, figures: Sequence[Figure]) -> bool:
    """Print the figures; whether every target is met."""
    print(f"\n{title}")
    print(f"  {'':44} {'median':>9} {'min':>9} {'max':>9}  {'unit':<9} target")
    for f in figures:
        goal = "" if f.target is None else f"<= {f.target:g} {'ok' if f.is_met else 'MISSED'}"
        print(f"  {f.name:44} {f.median:9.2f} {min(f.values):9.2f} {max(f.values):9.2f}  {f.unit:<9} {goal}")
    line = {
        "title": title,
        "python": platform.python_version(),
        "figures": {
            f.name: {"median": round(f.median, 3), "unit": f.unit, "target": f.target} for f in figures
        },
    }
    print(json.dumps(line), flush=True)
    return all(f.is_met for f in figures)
