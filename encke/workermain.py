"""A node in a process that another one has started, and that ends with it.

Started as ``python -m encke.workermain NAME``; NAME is for people who look at the
list of processes. Its standard input is its tie to the supervisor:

::

    the job, one line of JSON   first
    "drain soon"                say that it is not ready, and serve as before
    "drain"                     finish what was accepted, and end
    end of file                 the supervisor is gone: drain as well, or, when
                                already draining, end at once

On its standard output, besides what it says to people, its event loop writes ALIVE at
an interval: the supervisor kills one that hangs.

So no worker is left behind by a supervisor that was killed, and no secret of
its configuration stands on a command line or in a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from cluster.errors import UnavailableError
from cluster.model import NodeKind
from cluster.registry.local import LocalRegistry
from cluster.service import DRAIN_GRACE_S, STOP_TIMEOUT_S, Application, ServiceTasks
from cluster.stats import Stats
from encke.commands.running import run_process, say
from encke.config import EnckeConfig
from encke.nodes import NodeProcess, NodeRegistry

log = logging.getLogger(__name__)

DRAIN_SOON = b"drain soon\n"
DRAIN = b"drain\n"
# A line of standard output.
ALIVE = "alive"
ALIVE_LINE = f"{ALIVE}\n".encode()
# Written so often while the supervisor waits for one.
SIGNS_PER_SILENCE = 8


class Job(msgspec.Struct, frozen=True):
    """What a worker is told to be."""

    # For its log lines.
    name: str
    kind: NodeKind
    config: EnckeConfig
    # Descriptor that it inherits, the way to its registry; -1 = it is ZooKeeper.
    registry_fd: int = -1


class Supervised:
    """An application that drains when the supervisor says so, or is gone. Implements Application."""

    def __init__(
        self, application: Application, registry: NodeRegistry, silence_s: float, longest_s: float
    ) -> None:
        """Watch nothing yet.

        Args:
            silence_s: without a sign of life for so long the supervisor takes it for hanging; 0 = never.
            longest_s: a process that has not ended so long after its supervisor hangs, and is cut.
        """
        self._application = application
        self._registry = registry
        self._interval_s = silence_s / SIGNS_PER_SILENCE
        self._longest_s = longest_s
        self._next_sign: asyncio.TimerHandle | None = None

    async def start(self, tasks: ServiceTasks) -> None:
        """See Application.start()."""
        announce = partial(asyncio.get_running_loop().call_soon_threadsafe, self.announce_drain)
        threading.Thread(
            target=_watch_supervisor, args=(announce, self._longest_s), name="supervisor", daemon=True
        ).start()
        if isinstance(self._registry, LocalRegistry):
            tasks.spawn("registry", _end_when_lost(self._registry))
        if self._interval_s:
            self._give_sign()
        await self._application.start(tasks)

    def announce_drain(self) -> None:
        """See Application.announce_drain()."""
        self._application.announce_drain()

    async def drain(self, timeout_s: float) -> None:
        """See Application.drain()."""
        await self._application.drain(timeout_s)

    async def stop(self) -> None:
        """See Application.stop()."""
        try:
            await self._application.stop()
        finally:
            if self._next_sign is not None:
                self._next_sign.cancel()

    def _give_sign(self) -> None:
        """By the event loop, as it is the loop that may hang."""
        try:
            # A supervisor that does not read must not make it hang.
            if select.select([], [1], [], 0)[1]:
                # Past the buffer: what cannot be written would wait there for the next flush.
                os.write(1, ALIVE_LINE)
        except BrokenPipeError:
            # The supervisor is gone, which its thread has noticed.
            return
        self._next_sign = asyncio.get_running_loop().call_later(self._interval_s, self._give_sign)


def main() -> int:
    """Run the node that standard input describes; return the exit code."""
    # Without a buffer, which could swallow what follows.
    with open(0, "rb", buffering=0, closefd=False) as supervisor:
        line = supervisor.readline()
    if not line:
        # The supervisor was ended before it could say anything.
        return 0
    job = msgspec.json.decode(line, type=Job)

    def build(stats: Stats) -> Application:
        registry = _registry(job)
        node = NodeProcess(job.kind, job.config, stats, say, registry)
        process = job.config.process
        longest_s = process.drain_s + DRAIN_GRACE_S + STOP_TIMEOUT_S
        return Supervised(node, registry, process.worker_silence_s, longest_s)

    return run_process(job.config, build, worker=job.name)


def _registry(job: Job) -> NodeRegistry:
    if job.registry_fd >= 0:
        end = socket.socket(fileno=job.registry_fd)
        return LocalRegistry(end, job.config.registry.session_timeout_s)
    # Here: it costs the workers of one machine memory and time to start.
    from cluster.registry.zookeeper import ZooKeeperRegistry

    return ZooKeeperRegistry(job.config.registry)


async def _end_when_lost(registry: LocalRegistry) -> None:
    await registry.wait_lost()
    raise UnavailableError("the supervisor has ended the registration of this process")


def _watch_supervisor(announce_drain: Callable[[], object], longest_s: float) -> None:
    """A thread's work: it ends the process also when the event loop hangs."""
    with open(0, "rb", buffering=0, closefd=False) as supervisor:
        line = supervisor.readline()
        if line == DRAIN_SOON:
            announce_drain()
            line = supervisor.readline()
        if line == DRAIN:
            _drain()
            supervisor.read(1)
            os._exit(128 + signal.SIGTERM)
    _drain()
    log.warning("the supervisor is gone; this process ends, too")
    time.sleep(longest_s)
    log.error("stopping hangs; this process is cut")
    os._exit(1)


def _drain() -> None:
    """Have the process drain, as after a signal."""
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
