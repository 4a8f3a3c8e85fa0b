"""Life of a process: start, ready, signal, drain, stop.

::

    start ──> ready ──(SIGTERM, SIGINT, or a service task that died)──> drain ──> stop
      │                                                                   │
      └─(failed, or a signal)──────────────> stop                         └─(a second signal)──> exit at once

With process.drain_delay_s, a signal first makes it not ready; it serves on for so long, and then drains.
SIGHUP, of a terminal that is closed, is a signal like the others; but it comes more than once then,
so that it is never the second one, and who was started to outlive the terminal (nohup) ignores it.
Decides when, and with which exit code; what is started and drained is the
application's (encke/standalone.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import uvloop

from cluster.loopwatch import GarbageWatch, LoopLag
from cluster.stats import Stats

log = logging.getLogger(__name__)

# Beyond the drain's own time, for what it does last.
DRAIN_GRACE_S = 1.0
# Closing files and sockets after a drain; longer means that something hangs.
STOP_TIMEOUT_S = 5.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """The process itself, whichever nodes it runs."""

    drain_s: float = field(
        default=8.0,
        metadata={
            "doc": "Time to finish pushes and close subscribers after SIGTERM. Up to 6 s more until the"
            " process ends: containers need to allow 15.",
            "min": 0.0,
            "max": 3600.0,
        },
    )
    drain_delay_s: float = field(
        default=0.0,
        metadata={
            "doc": "After SIGTERM /readyz says 503 for this long while all is served as before; then drain_s"
            " begins. Longer than a balancer that asks /readyz takes to notice.",
            "min": 0.0,
            "max": 3600.0,
        },
    )
    worker_silence_s: float = field(
        default=10.0,
        metadata={
            "doc": "With --workers: a process that gives no sign of life for this long hangs; it is killed"
            " and started again. 0: never.",
            "min": 0.0,
            "max": 3600.0,
        },
    )
    reserve_descriptors: int = field(
        default=512,
        metadata={
            "doc": "File descriptors kept for HTTP, the store and logs; the rest are for subscribers. "
            "Of a small limit, at most half is kept; of a large one, `encke serve` keeps up to an eighth"
            " for web.max_connections.",
            "min": 0,
        },
    )
    lag_probe_s: float = field(
        default=0.1,
        metadata={
            "doc": "How often the event loop's lateness is measured; 0: never. bench/fanout.py takes 0.002.",
            "min": 0.0,
            "max": 60.0,
        },
    )


class Application(Protocol):
    """What runs in a process."""

    async def start(self, tasks: ServiceTasks) -> None:
        """Start everything. When it raises, or is cancelled, stop() releases what had been started."""
        ...

    def announce_drain(self) -> None:
        """Say on /readyz that it drains, and serve on as before: drain() follows, perhaps much later."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Stop taking work and finish what was accepted, within about timeout_s."""
        ...

    async def stop(self) -> None:
        """Release everything. Called once, also after a start that failed half way."""
        ...


class ServiceTasks:
    """The long-running tasks of a process. One that fails makes the process drain and exit non-zero."""

    def __init__(self, group: asyncio.TaskGroup, ending: asyncio.Event) -> None:
        self._group = group
        self._ending = ending
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()

    @property
    def has_failed(self) -> bool:
        """Whether the process exits non-zero."""
        return self._failed.is_set()

    async def wait_failed(self) -> None:
        """Wait until one has failed. Cancellation: safe."""
        await self._failed.wait()

    def fail(self) -> None:
        """Have the process drain, if it does not yet, and exit non-zero."""
        self._failed.set()
        self._ending.set()

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run work until it ends or the process stops; stopping cancels it."""
        task = self._group.create_task(self._guard(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """End all of them; the task group waits until they have."""
        for task in self._tasks:
            task.cancel()

    async def _guard(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        # Without this guard the group would cancel the siblings at once, and
        # pushes that have begun could not be finished.
        try:
            await work
        except Exception:
            log.exception("a service task failed; the process drains and exits: task=%s", name)
            self.fail()


def run(application: Application, config: ProcessConfig, stats: Stats, *, is_supervised: bool = False) -> int:
    """Run an application until a signal or a failure; return the exit code.

    Args:
        is_supervised: another process of ours ends this one. A second signal changes nothing then: an
            init system that signals all processes must not cut the drain short that the other one began.
            The delay before the drain is the other one's.

    Raises:
        Exception: what application.start() raised; it has been stopped then.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(live(application, config, stats, is_supervised=is_supervised))


async def live(
    application: Application, config: ProcessConfig, stats: Stats, *, is_supervised: bool = False
) -> int:
    """The same on the running loop, which must be the main thread's (it takes the signals)."""
    ending = asyncio.Event()
    signals = _Signals(ending, is_supervised)
    signals.install()
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = ServiceTasks(group, ending)
            try:
                if await _start(application, tasks, ending):
                    delay_s = 0.0 if is_supervised else config.drain_delay_s
                    with _watching(config.lag_probe_s, stats):
                        await ending.wait()
                        application.announce_drain()
                        await _serve_on(delay_s, tasks)
                    await _drain(application, config.drain_s)
            except Exception as error:
                # Kept from the group, which would wrap it.
                failure = error
            finally:
                await _stop(application)
                tasks.cancel()
    finally:
        signals.remove()
    if failure is not None:
        raise failure
    log.info("stopped")
    return 1 if tasks.has_failed else 0


async def _start(application: Application, tasks: ServiceTasks, ending: asyncio.Event) -> bool:
    """Start the application; False when a signal came first."""
    starting = asyncio.ensure_future(application.start(tasks))
    signalled = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait((starting, signalled), return_when=asyncio.FIRST_COMPLETED)
    finally:
        signalled.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
    if starting.cancelled():
        return False
    starting.result()
    return True


@contextlib.contextmanager
def _watching(lag_probe_s: float, stats: Stats) -> Iterator[None]:
    lag = LoopLag(lag_probe_s, stats)
    garbage = GarbageWatch(stats)
    lag.start()
    garbage.start()
    try:
        yield
    finally:
        lag.stop()
        garbage.stop()


async def _serve_on(delay_s: float, tasks: ServiceTasks) -> None:
    """Let those who ask /readyz notice; a process that has failed does not wait for them."""
    if not delay_s or tasks.has_failed:
        return
    log.info("not ready any more, serving on for %g s", delay_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await tasks.wait_failed()


async def _drain(application: Application, drain_s: float) -> None:
    log.info("draining for at most %g s", drain_s)
    try:
        async with asyncio.timeout(drain_s + DRAIN_GRACE_S):
            await application.drain(drain_s)
    except TimeoutError:
        log.warning("the drain was not done in time; stopping now")


async def _stop(application: Application) -> None:
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await application.stop()
    except TimeoutError:
        log.error("stopping hangs; giving up on it")


class _Signals:
    """First signal: drain. Second: exit at once, unless another process decides that."""

    def __init__(self, ending: asyncio.Event, is_supervised: bool) -> None:
        self._ending = ending
        self._is_supervised = is_supervised
        self._loop = asyncio.get_running_loop()
        self._has_come = False
        # nohup ignores SIGHUP for those whom it starts.
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._numbers = [one for one in _SIGNALS if not (is_ignored and one is signal.SIGHUP)]

    def install(self) -> None:
        for number in self._numbers:
            self._loop.add_signal_handler(number, self._take, number)

    def remove(self) -> None:
        for number in self._numbers:
            self._loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals) -> None:
        if self._has_come and (self._is_supervised or number is signal.SIGHUP):
            return
        if self._has_come:
            _exit_now(number)
        self._has_come = True
        another = "SIGTERM" if number is signal.SIGHUP else "another one"
        hint = "" if self._is_supervised else f"; {another} exits at once"
        log.info("%s: draining%s", number.name, hint)
        self._ending.set()


def _exit_now(number: signal.Signals) -> NoReturn:
    # No cleanup: what was answered is on disk, and the operator is in a hurry.
    os._exit(128 + number)
