"""Types of arguments that several commands take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def seconds(least: float) -> Callable[[str], float]:
    """A time of at least so many seconds, and not for ever."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number < math.inf:
            raise argparse.ArgumentTypeError(f"must be at least {least:g} seconds, got {text!r}")
        return number

    return read
