"""Several nodes on one machine, a process each: behind `encke comet --workers` and `encke serve --workers`.

The supervisor starts them, is their registry where there is no ZooKeeper,
starts again what dies, and ends all of them in order. It serves nothing
itself but its status port, so it has nothing to lose.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from cluster.model import NodeKind
from cluster.process import add_process_gauges
from cluster.registry.localserver import RegistryServer
from cluster.service import ServiceTasks
from cluster.stats import Stats
from cluster.status import StatusListener
from encke.announcing import READY, Line, Listening, Room, Storing, identity, listening
from encke.config import EnckeConfig
from encke.invocation import Invocation
from encke.workerplan import WorkerPlan
from encke.workerprocess import Worker

log = logging.getLogger(__name__)

_Line = TypeVar("_Line", Room, Storing)

# For a worker that did not end within the drain, before it is killed.
KILL_MARGIN_S = 1.0

# Those first on whom the others wait; ended in the order in which they need each other.
_START = ((NodeKind.MESSAGE,), (NodeKind.COMET, NodeKind.WEB))
_END = (NodeKind.WEB, NodeKind.COMET, NodeKind.MESSAGE)


class Supervisor:
    """The application that runs workers; implements cluster.service.Application."""

    def __init__(
        self,
        config: EnckeConfig,
        plans: Sequence[WorkerPlan],
        status_bind: str,
        stats: Stats,
        say: Callable[[str], None],
        *,
        serving: Invocation | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            say: takes the lines for standard output.
            serving: how `encke serve` was started, for the examples. None: the workers are nodes of a
                cluster, and register with ZooKeeper.
        """
        self._config = config
        self._plans = plans
        self._stats = stats
        self._say = say
        self._serving = serving
        self._status = StatusListener(status_bind, stats, self._ready_fault, self._notes)
        self._registry: RegistryServer | None = None
        self._workers: list[Worker] = []
        # The work of each worker that was started.
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self._services: ServiceTasks | None = None
        self._is_announced = False
        self._is_draining = False
        self._restarts = stats.counter(
            "worker_restarts_total", "Workers that died and were started again.", "worker"
        )

    async def start(self, tasks: ServiceTasks) -> None:
        """Start all workers; return when all of them serve.

        Raises:
            WorkerError: one cannot start; it has said why on standard error.
            OSError: the status port cannot be bound, or no process can be started.
        """
        self._services = tasks
        self._add_gauges()
        await self._status.start()
        if self._serving:
            # Higher than any before, unless the clock was set back: incarnations are fenced for a day.
            self._registry = RegistryServer(generation=time.time_ns())
        for worker_plan in self._plans:
            worker = Worker(worker_plan, self._registry, self._take_ready, self._take_restart)
            self._restarts.child(worker.name)
            self._workers.append(worker)
        for kinds in _START:
            await self._start_stage([worker for worker in self._workers if worker.kind in kinds])
        self._announce()

    def announce_drain(self) -> None:
        """See Application.announce_drain(); the workers' own ports say so, too."""
        self._is_draining = True
        for worker in self._workers:
            worker.announce_drain()

    async def drain(self, timeout_s: float) -> None:
        """End the workers, those first whom the others serve. How long each may take is in its settings."""
        for kind in _END:
            stage = [worker for worker in self._workers if worker.kind is kind]
            for worker in stage:
                worker.end()
            running = [self._tasks[worker] for worker in stage if worker in self._tasks]
            if running:
                await asyncio.wait(running)

    async def stop(self) -> None:
        """End what still runs; kill what does not end."""
        self._is_draining = True
        for worker in self._workers:
            worker.end()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=KILL_MARGIN_S)
            for worker in self._workers if late else ():
                worker.kill()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._registry is not None:
            await self._registry.stop()
        await self._status.stop()
        if self._services is not None and any(worker.has_failed for worker in self._workers):
            self._services.fail()

    async def _start_stage(self, workers: list[Worker]) -> None:
        assert self._services is not None
        for worker in workers:
            task = asyncio.create_task(worker.keep(), name=worker.name)
            self._tasks[worker] = task
            # A fault of ours: without it the worker would be missing from then on.
            self._services.spawn(f"keep {worker.name}", _follow(task))
        await asyncio.gather(*(worker.has_started for worker in workers))

    # -- what workers do

    def _take_ready(self, worker: Worker) -> None:
        if self._is_announced:
            log.info("worker is back: node=%s", worker.name)
            self._relay(worker)

    def _take_restart(self, worker: Worker) -> None:
        self._restarts.inc(worker.name)

    def _ready_fault(self) -> str | None:
        if self._is_draining:
            return "draining"
        if not self._is_announced:
            return "starting"
        for kind in {worker.kind for worker in self._workers}:
            if not any(worker.is_ready for worker in self._workers if worker.kind is kind):
                return f"no {kind.value} worker is ready"
        return None

    def _notes(self) -> list[str]:
        missing = [worker.name for worker in self._workers if not worker.is_ready]
        own = identity("serve" if self._serving else "comet")
        return [own, *map(str, self._said(Storing)), *(f"{name} is not ready" for name in missing)]

    def _said(self, kind: type[_Line]) -> list[_Line]:
        """The lines of one kind, of all workers."""
        return [line for worker in self._workers for line in worker.said if isinstance(line, kind)]

    # -- what the operator is told

    def _announce(self) -> None:
        for worker in self._workers:
            self._relay(worker)
        if self._serving:
            self._announce_server(self._serving)
        else:
            for line in listening(self._status.addresses):
                self._say(str(line))
        self._say(READY)
        self._is_announced = True

    def _relay(self, worker: Worker) -> None:
        """Say what a worker has said, under its name."""
        for line in worker.said:
            if not (self._serving and self._is_hidden(line)):
                self._say(f"{worker.name}: {line}")

    def _is_hidden(self, line: Line | str) -> bool:
        """Whether `encke serve` says it not at all, or without a worker's name, as in one process."""
        match line:
            case Listening(purpose="rpc"):
                return True
            case Listening(purpose="public" | "admin") | Storing():
                return not self._is_announced
            case _:
                return False

    def _announce_server(self, serving: Invocation) -> None:
        """What `encke serve` says of a server in one process."""
        web = next(worker for worker in self._workers if worker.kind is NodeKind.WEB)
        # Either both have a status port or none.
        addresses = {**web.addresses, **self._status.addresses}
        room = Room(sum(line.subscribers for line in self._said(Room)))
        for line in (*listening(addresses), *self._said(Storing), room):
            self._say(str(line))
        for text in serving.suggestion(self._config, addresses):
            self._say(text)

    def _add_gauges(self) -> None:
        add_process_gauges(self._stats)
        self._stats.gauge("workers", "Workers that there should be.", lambda: len(self._plans))
        self._stats.gauge(
            "workers_ready", "Workers that serve.", lambda: sum(worker.is_ready for worker in self._workers)
        )


async def _follow(task: asyncio.Task[None]) -> None:
    await asyncio.shield(task)
