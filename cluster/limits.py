"""What the operating system grants this process: file descriptors, and so connections."""

from __future__ import annotations

import os
import resource

# Of a web node: for the public and the admin API.
HTTP_LISTENERS = 2
# Kept from HTTP, for all else: the status port, calls to other nodes, the store, logs.
OWN_DESCRIPTORS = 64


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
    free = free_descriptors(descriptor_limit)
    return free - min(reserve, free // 2)


def shared_capacity(descriptor_limit: int, reserve: int, http_wanted: int) -> tuple[int, int]:
    """How many subscribers, and how many connections to each HTTP listener, one process can have at a time.

    Args:
        descriptor_limit: of this process.
        reserve: as for connection_capacity().
        http_wanted: connections of an HTTP listener. Of a large limit an eighth may serve them.
    """
    free = free_descriptors(descriptor_limit)
    wanted = OWN_DESCRIPTORS + HTTP_LISTENERS * http_wanted
    subscribers = connection_capacity(descriptor_limit, max(reserve, min(wanted, free // 8)))
    return subscribers, http_capacity(free - subscribers)


def http_capacity(free: int) -> int:
    """How many connections each HTTP listener of a process can have at a time.

    Args:
        free: descriptors that nobody else is promised.
    """
    return max(1, (free - min(OWN_DESCRIPTORS, free // 2)) // HTTP_LISTENERS)


def free_descriptors(descriptor_limit: int) -> int:
    """Descriptors that can still be opened under such a limit."""
    return max(0, descriptor_limit - count_open_descriptors())


def count_open_descriptors() -> int:
    """File descriptors that are open now."""
    # One of them is the listing's own.
    return len(os.listdir("/proc/self/fd")) - 1
