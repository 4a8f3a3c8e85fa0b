"""CPU time and memory of another process, read from /proc."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

# A process is quiet when it used less CPU than this in one interval: the timers of an event loop take
# about 0.1 ms.
QUIET_INTERVAL_S = 0.1
QUIET_CPU_S = 0.002
QUIET_TIMEOUT_S = 10.0


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


def quiet_cpu_s(pid: int) -> float:
    """CPU seconds that a process has used so far, once it is quiet; as all_quiet_cpu_s()."""
    return all_quiet_cpu_s({"": pid})[""]


def all_quiet_cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds that processes have used so far, by name, once all are quiet.

    Raises:
        RuntimeError: one goes on working.
    """
    last = {name: cpu_s(pid) for name, pid in pids.items()}
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(QUIET_INTERVAL_S)
        now = {name: cpu_s(pid) for name, pid in pids.items()}
        if all(now[name] - last[name] < QUIET_CPU_S for name in pids):
            return now
        last = now
    raise RuntimeError("the server does not become quiet")


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
