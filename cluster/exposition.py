"""Writes what a process counts in the text format of Prometheus, version 0.0.4.

By hand: the format is lines of "name value", and a library that builds an
object for every line takes ten times as long, during which nothing else runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cluster.stats import Family, HistogramReading

PREFIX = "encke_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(families: Iterable[Family]) -> str:
    """The text of all families, in their order; every line ends in a line feed."""
    lines: list[str] = []
    for family in families:
        name = PREFIX + family.name
        lines.append(f"# HELP {name} {_help_text(family.text)}")
        lines.append(f"# TYPE {name} {family.kind.value}")
        for label_value, reading in family.readings.items():
            label = f'{family.label}="{_label_text(label_value)}"' if family.label else ""
            if isinstance(reading, HistogramReading):
                lines.extend(_histogram(name, label, reading))
            else:
                lines.append(f"{name}{{{label}}} {reading}" if label else f"{name} {reading}")
    lines.append("")
    return "\n".join(lines)


def _histogram(name: str, label: str, reading: HistogramReading) -> Iterator[str]:
    total = 0
    before = f"{label}," if label else ""
    for bound, count in zip(reading.bounds, reading.counts, strict=False):
        total += count
        yield f'{name}_bucket{{{before}le="{bound:g}"}} {total}'
    total += reading.counts[-1]
    after = f"{{{label}}}" if label else ""
    yield f'{name}_bucket{{{before}le="+Inf"}} {total}'
    yield f"{name}_count{after} {total}"
    yield f"{name}_sum{after} {reading.sum}"


def _help_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label_text(value: str) -> str:
    return _help_text(value).replace('"', '\\"')
