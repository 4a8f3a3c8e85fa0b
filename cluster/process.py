"""What a process tells of itself: memory, descriptors, CPU time."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from cluster.stats import Stats

_OPEN_FDS = "/proc/self/fd"


def add_process_gauges(stats: Stats) -> None:
    """Let the process tell its memory, descriptors and CPU time."""
    stats.gauge("process_resident_bytes", "Resident memory of this process.", _resident_bytes)
    stats.gauge("process_open_fds", "Open file descriptors.", _open_descriptors)
    stats.gauge(
        "process_max_fds",
        "File descriptors that this process may open.",
        lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    stats.gauge("process_cpu_seconds", "CPU time used, user and system.", _cpu_seconds)


def _open_descriptors() -> float:
    # The size of this directory is the number of its entries since Linux 6.2, and 0 before.
    # Listing it takes 1 us a descriptor: 16 ms of the event loop with 15,000 subscribers.
    return os.stat(_OPEN_FDS).st_size or len(os.listdir(_OPEN_FDS))


def _resident_bytes() -> float:
    # statm: size, resident, ... in pages.
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
