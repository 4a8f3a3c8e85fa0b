"""What a node has counted."""

from __future__ import annotations

from cluster.stats import Stats


def counted(stats: Stats, name: str, label: str = "") -> float:
    """A counter or gauge, by the value of its label.

    Raises:
        KeyError: nothing has this name.
    """
    for family in stats.snapshot():
        if family.name == name:
            value = family.readings.get(label, 0)
            assert isinstance(value, int | float)
            return value
    raise KeyError(name)
