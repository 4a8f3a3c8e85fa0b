"""What the operating system grants this process: file descriptors, and so connections."""

from __future__ import annotations

import os
import resource


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        # Some containers forbid it; then we live with what there is.
        return soft
    return hard


def connection_capacity(descriptor_limit: int, reserve: int) -> int:
    """How many subscribers can be connected at a time.

    Args:
        descriptor_limit: of this process.
        reserve: descriptors kept for HTTP, the store and the logs; at most
            half of what is free, so that a small limit still serves somebody.
    """
    free = max(0, descriptor_limit - count_open_descriptors())
    return free - min(reserve, free // 2)


def count_open_descriptors() -> int:
    """File descriptors that are open now."""
    # One of them is the listing's own.
    return len(os.listdir("/proc/self/fd")) - 1
