"""What the durability setting of the embedded store makes of an answered push."""

from __future__ import annotations

from cluster.contracts.message import Guarantee

_PROMISES = {
    "fsync": "an answered push survives a crash of the machine",
    "os": "an answered push survives a crash of the process, not of the machine",
}


def guarantee(location: str, durability: str) -> Guarantee:
    """Say what the store promises with a setting of `durability`."""
    return Guarantee("embedded", location, durability, _PROMISES[durability])
