"""Lets a server live in another time: Debian's libfaketime, loaded into its process."""

from __future__ import annotations

import os
from pathlib import Path

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class WallClock:
    """The wall clock of one server, which a test may set while it runs. Its monotonic clock is real."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set("+0")

    def set(self, offset: str) -> None:
        """Move it from the real time: "-1h", "+3650d", "+0"."""
        # Replaced in one step: the server reads it at every look at the clock.
        fresh = self._path.with_suffix(".new")
        fresh.write_text(offset + "\n")
        os.replace(fresh, self._path)

    @property
    def environ(self) -> dict[str, str]:
        """For the server's process."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def fast_time(factor: int) -> dict[str, str]:
    """Environment of a process in which all clocks run faster."""
    return {"LD_PRELOAD": str(library()), "FAKETIME": f"+0 x{factor}"}


def offset_time(offset: str) -> dict[str, str]:
    """Environment of a process whose wall clock is off ("+5s", "-1h"). Its monotonic clock is real."""
    return {"LD_PRELOAD": str(library()), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def library() -> Path:
    """The library.

    Raises:
        AssertionError: it is not installed.
    """
    assert LIBRARIES, "needs Debian's package faketime"
    return LIBRARIES[0]
