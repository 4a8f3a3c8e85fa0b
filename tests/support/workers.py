"""Servers that run workers: what each of them says, and where it listens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.peer import Address
from tests.support.system import Server

_LISTENING = re.compile(r"(\S+): listening (\w+) (\S+):(\d+)$")
_CHILDREN = "/proc/{pid}/task/{pid}/children"


def worker_addresses(server: Server) -> dict[str, dict[str, Address]]:
    """Where each worker listens, by its name and by purpose; of one that was started again the last word."""
    found: dict[str, dict[str, Address]] = {}
    for line in server.output:
        if match := _LISTENING.match(line):
            found.setdefault(match[1], {})[match[2]] = (match[3], int(match[4]))
    return found


def worker_at(server: Server, address: Address) -> str | None:
    """Name of the worker that listens at an address; None when none has said so."""
    found = worker_addresses(server).items()
    return next((name for name, listens in found if address in listens.values()), None)


def worker_pids(server: Server) -> dict[str, int]:
    """The process of each worker that runs, by its name."""
    found: dict[str, int] = {}
    for pid in Path(_CHILDREN.format(pid=server.pid)).read_text().split():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except FileNotFoundError:
            # Gone meanwhile.
            continue
        if "encke.workermain" in words:
            found[words[words.index("encke.workermain") + 1]] = int(pid)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class WorkerCluster(Cluster):
    """One `encke serve --workers`, to be used as a cluster of one web node and several comet nodes."""

    def __init__(self, server: Server) -> None:
        """Take a server; its starter ends it."""
        self.nodes = {"web-1": server}
        self.resting = set()

    def comet_of(self, address: Address) -> str | None:
        """The worker that listens there; None while it is starting and has not said so here."""
        return worker_at(self.web, address)

    def tcp_of(self, name: str) -> Address:
        """Where a worker listens for TCP."""
        return worker_addresses(self.web)[name]["tcp"]


def serve_workers(directory: Path, count: int, **options: Any) -> Server:
    """A server with so many comet workers on free ports, not started yet."""
    return Server(directory, flags=("--workers", str(count)), **options)
