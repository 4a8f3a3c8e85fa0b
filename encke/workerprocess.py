"""One worker process: started, listened to, started again when it dies, ended.

Decides when a process is started again, not which workers there are
(encke/workerplan.py) nor in which order they end (encke/supervisor.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable

import msgspec

from cluster.errors import EnckeError
from cluster.model import NodeKind
from cluster.registry.localserver import RegistryServer
from encke.announcing import READY, Line, Listening, read_line
from encke.workermain import ALIVE, DRAIN, DRAIN_SOON, Job
from encke.workerplan import WorkerPlan

log = logging.getLogger(__name__)

# Pause before a worker is started again; doubles while it does not last.
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0
# A worker that has served for so long was well: the next pause is the first again.
LASTING_S = 10.0

# It ended as if it had been told to.
GONE = "it ended by itself"

# The silence after which a worker hangs is waited for in so many parts: a supervisor that was
# stopped itself finds one of them over, and then what the worker has said meanwhile.
SILENCE_PARTS = 4

# Of the output of a worker, which is ours.
_MAX_LINE_BYTES = 64 * 1024


class WorkerError(EnckeError):
    """A worker cannot be started, or did not end well."""

    code = "worker"


class Worker:
    """The process of one plan, one after the other."""

    def __init__(
        self,
        plan: WorkerPlan,
        registry: RegistryServer | None,
        on_ready: Callable[[Worker], None],
        on_restart: Callable[[Worker], None],
    ) -> None:
        """Start nothing yet; needs a running loop.

        Args:
            registry: where it is to register; None = ZooKeeper.
            on_ready: told each time that a process serves.
            on_restart: told each time that one has died and another will be started.
        """
        self.plan = plan
        self._registry = registry
        self._on_ready = on_ready
        self._on_restart = on_restart
        # What the process of the moment, or the last one, has said.
        self.said: list[Line | str] = []
        # Where it listens, by purpose.
        self.addresses: dict[str, str] = {}
        self.is_ready = False
        # Done when a process is ready for the first time; an error when the first one fails.
        self.has_started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The last process served, and then ended with something else than 0, or had to be killed.
        self.has_failed = False
        self._process: Process | None = None
        # Its end has been announced.
        self._is_announced = False
        self._ending = asyncio.Event()
        self._silence_s = plan.config.process.worker_silence_s

    @property
    def name(self) -> str:
        """Of its node."""
        return self.plan.name

    @property
    def kind(self) -> NodeKind:
        """Of its node."""
        return self.plan.kind

    async def keep(self) -> None:
        """Keep a process running until end().

        Cancellation: kills it.
        """
        loop = asyncio.get_running_loop()
        plan = self.plan
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            started_at = loop.time()
            reason = await self._run(plan)
            was_ready, self.is_ready = self.is_ready, False
            if self._ending.is_set():
                self.has_failed = was_ready and bool(reason)
                break
            if not self.has_started.done():
                self.has_started.set_exception(WorkerError(f"{self.name} could not start: {reason or GONE}"))
                return
            # Where it was: others and subscribers may know the way. If it is not
            # free any more, wherever it likes.
            plan = self.plan.bound_at(self.addresses) if was_ready else self.plan
            pause_s = FIRST_PAUSE_S if was_ready and loop.time() - started_at > LASTING_S else pause_s
            log.warning(
                "worker ended, it is started again: node=%s reason=%s pause_s=%g",
                self.name,
                reason or GONE,
                pause_s,
            )
            self._on_restart(self)
            await self._rest(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
        if not self.has_started.done():
            self.has_started.cancel()

    def announce_drain(self) -> None:
        """Have this process, and those that follow it, say that they are not ready, and serve as before."""
        self._is_announced = True
        if self._process is not None:
            self._tell(self._process, DRAIN_SOON)

    def end(self) -> None:
        """Have the process drain and end, and start no other. Does not wait; may be called more than once."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self._process is not None:
            self._tell(self._process, DRAIN)

    def kill(self) -> None:
        """Cut a process that has not ended in time; does nothing when there is none."""
        self.end()
        if self._process is not None and self._process.returncode is None:
            log.error("worker did not end in time, it is killed: node=%s", self.name)
            self._process.kill()

    async def _run(self, plan: WorkerPlan) -> str:
        """Run one process from its start to its end; say why it ended, empty when orderly."""
        self.said = []
        end: socket.socket | None = None
        connection: object = None
        try:
            if self._registry is not None:
                end, connection = self._registry.connect()
            try:
                process = await _spawn(plan, end)
            finally:
                if end is not None:
                    end.close()
            return await self._attend(process)
        except OSError as error:
            # No more processes or descriptors: perhaps later.
            return str(error)
        finally:
            if self._registry is not None:
                # Before another one is started: it must not meet this one's entry.
                await self._registry.disconnect(connection)

    async def _attend(self, process: Process) -> str:
        """Listen to a process until it ends; say why it did."""
        self._process = process
        assert process.stdout is not None
        hangs = ""
        try:
            if self._is_announced:
                self._tell(process, DRAIN_SOON)
            if self._ending.is_set():
                self._tell(process, DRAIN)
            while (line := await self._next_line(process.stdout)) != b"":
                if line is None:
                    hangs = f"no sign of life for {self._silence_s:g} s, killed"
                    process.kill()
                else:
                    self._hear(line.decode(errors="replace").rstrip("\n"))
            return hangs or _reason(await process.wait())
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()
                await process.wait()
            if process.stdin is not None:
                process.stdin.close()

    async def _next_line(self, output: asyncio.StreamReader) -> bytes | None:
        """What it says next, empty at the end; None when it has been silent for too long."""
        silent_parts = 0
        while silent_parts < SILENCE_PARTS:
            # Before it serves it may take its time; while it ends the supervisor has a limit of its own.
            is_watched = self._silence_s and self.is_ready and not self._ending.is_set()
            try:
                async with asyncio.timeout(self._silence_s / SILENCE_PARTS if is_watched else None):
                    return await output.readline()
            except TimeoutError:
                silent_parts += 0 if self._ending.is_set() else 1
        return None

    def _hear(self, text: str) -> None:
        if text == ALIVE:
            return
        line = read_line(text)
        self.said.append(line)
        if isinstance(line, Listening):
            self.addresses[line.purpose] = line.address
        if line == READY:
            self.is_ready = True
            self._on_ready(self)
            if not self.has_started.done():
                self.has_started.set_result(None)

    @staticmethod
    def _tell(process: Process, word: bytes) -> None:
        assert process.stdin is not None
        # One that has just died does not read.
        with contextlib.suppress(OSError, RuntimeError):
            process.stdin.write(word)

    async def _rest(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._ending.wait()


async def _spawn(plan: WorkerPlan, registry_end: socket.socket | None) -> Process:
    """Start a process and tell it what it is to be."""
    fd = -1 if registry_end is None else registry_end.fileno()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "encke.workermain", plan.name),
        stdin=PIPE,
        stdout=PIPE,
        limit=_MAX_LINE_BYTES,
        pass_fds=() if registry_end is None else (fd,),
        # Ctrl-C is for the supervisor, which then ends the workers in order.
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(Job(plan.name, plan.kind, plan.config, fd)) + b"\n")
    return process


def _reason(code: int) -> str:
    """Words for an exit code."""
    if code >= 0:
        return f"exit code {code}" if code else ""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
