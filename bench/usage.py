"""CPU time and memory of another process, read from /proc."""

from __future__ import annotations

from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds that the living threads of a process have used, user and system, to the nanosecond.

    Exact for threads that sleep now; one that runs is behind by up to a
    scheduler tick. So read it before work and after things have become quiet.
    """
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total_ns += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            # A thread that ended between the listing and the reading.
            continue
    return total_ns / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of a process.

    From smaps_rollup, which counts the pages: the cheaper statm and status
    are behind by up to 64 pages per core.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Rss in smaps_rollup of {pid}")


def waited_s(pid: int) -> float:
    """Seconds for which a process's main thread was ready to run and got no core: what others have taken."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9
