"""cluster/service.py."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.service import ProcessConfig, ServiceTasks, live
from cluster.stats import Stats

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


class Recorder:
    """An application that notes what it is told, and can be made to fail or wait."""

    def __init__(self, on_ready: Callable[[], None] = lambda: None) -> None:
        self.events: list[str] = []
        self.on_ready = on_ready
        self.start_error: Exception | None = None
        self.start_waits = False
        self.drain_waits = False
        self.work_error: Exception | None = None
        self.on_announced: Callable[[], None] = lambda: None
        self.fails = asyncio.Event()

    async def start(self, tasks: ServiceTasks) -> None:
        self.events.append("start")
        if self.start_error is not None:
            raise self.start_error
        tasks.spawn("work", self._work())
        asyncio.get_running_loop().call_soon(self.on_ready)
        if self.start_waits:
            await asyncio.Event().wait()

    def announce_drain(self) -> None:
        self.events.append("announce")
        self.on_announced()

    async def drain(self, timeout_s: float) -> None:
        self.events.append(f"drain {timeout_s}")
        if self.drain_waits:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        self.events.append("stop")

    async def _work(self) -> None:
        if self.work_error is not None:
            raise self.work_error
        try:
            await self.fails.wait()
        finally:
            self.events.append("work ended")
        raise RuntimeError("failed later")


async def run(application: Recorder, config: ProcessConfig | None = None) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await live(application, config or ProcessConfig(drain_s=1.0), Stats())


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("send", [terminate, interrupt])
async def test_signal_drains_stops_then_ends_service_tasks(send: Callable[[], None]) -> None:
    application = Recorder(on_ready=send)
    assert await run(application) == 0
    assert application.events == ["start", "announce", "drain 1.0", "stop", "work ended"]


async def test_signal_during_start_stops_without_drain() -> None:
    application = Recorder(on_ready=terminate)
    application.start_waits = True
    assert await run(application) == 0
    assert application.events == ["start", "stop", "work ended"]


async def test_failed_start_stops_what_was_started_and_tells_the_error_as_it_was() -> None:
    application = Recorder()
    application.start_error = OSError("port in use")
    with pytest.raises(OSError, match="port in use"):
        await run(application)
    assert application.events == ["start", "stop"]


async def test_dead_service_task_drains_and_exits_non_zero(caplog: pytest.LogCaptureFixture) -> None:
    application = Recorder()
    application.work_error = RuntimeError("broken")
    assert await run(application) == 1
    assert application.events == ["start", "announce", "drain 1.0", "stop"]
    assert "a service task failed; the process drains and exits: task=work" in caplog.text


async def test_drain_that_takes_too_long_is_cut(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.service.DRAIN_GRACE_S", 0.05)
    application = Recorder(on_ready=terminate)
    application.drain_waits = True
    assert await run(application, ProcessConfig(drain_s=0.05)) == 0
    assert application.events == ["start", "announce", "drain 0.05", "stop", "work ended"]
    assert "not done in time" in caplog.text


async def test_signal_handlers_are_gone_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await run(Recorder(on_ready=terminate))
    loop = asyncio.get_running_loop()
    assert not loop.remove_signal_handler(signal.SIGTERM)
    assert "SIGTERM: draining" in caplog.text


async def test_dead_service_task_ends_the_delay_before_the_drain() -> None:
    application = Recorder(on_ready=terminate)
    application.on_announced = application.fails.set
    assert await run(application, ProcessConfig(drain_s=1.0, drain_delay_s=3600.0)) == 1
    assert application.events == ["start", "announce", "work ended", "drain 1.0", "stop"]


async def test_dead_service_task_is_not_followed_by_a_delay() -> None:
    application = Recorder()
    application.work_error = RuntimeError("broken")
    assert await run(application, ProcessConfig(drain_s=1.0, drain_delay_s=3600.0)) == 1
    assert application.events == ["start", "announce", "drain 1.0", "stop"]


async def test_process_serves_on_for_the_delay_and_then_drains(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    application = Recorder(on_ready=terminate)
    assert await run(application, ProcessConfig(drain_s=1.0, drain_delay_s=0.05)) == 0
    assert application.events == ["start", "announce", "drain 1.0", "stop", "work ended"]
    assert "serving on for 0.05 s" in caplog.text


async def test_delay_of_a_supervised_process_is_the_supervisors() -> None:
    application = Recorder(on_ready=terminate)
    config = ProcessConfig(drain_s=1.0, drain_delay_s=3600.0)
    async with asyncio.timeout(PATIENCE_S):
        assert await live(application, config, Stats(), is_supervised=True) == 0
    assert application.events == ["start", "announce", "drain 1.0", "stop", "work ended"]


SLOW_TO_DRAIN = """
import asyncio, sys
from cluster.service import ProcessConfig, run
from cluster.stats import Stats
class Application:
    async def start(self, tasks): print("ready", flush=True)
    def announce_drain(self): print("announced", flush=True)
    async def drain(self, timeout_s):
        print("draining", flush=True)
        await asyncio.Event().wait()
    async def stop(self): pass
sys.exit(run(Application(), ProcessConfig(drain_s=600, drain_delay_s=float(sys.argv[1])), Stats()))
"""


@pytest.mark.parametrize("delay_s", [0, 600])
def test_second_signal_exits_at_once(delay_s: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_DRAIN, str(delay_s)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "announced\n"
            assert delay_s or process.stdout.readline() == "draining\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        finally:
            process.kill()


def test_closed_terminal_drains_however_often_it_says_so() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_DRAIN, "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "announced\n"
            assert process.stdout.readline() == "draining\n"
            # The terminal's shell and the system both send it.
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        finally:
            process.kill()


async def test_closed_terminal_is_nothing_to_a_process_that_was_to_outlive_it() -> None:
    handled: list[object] = []

    def look() -> None:
        handled.append(signal.getsignal(signal.SIGHUP))
        terminate()

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert await run(Recorder(on_ready=look)) == 0
        assert handled == [signal.SIG_IGN]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class DrainsUntilSignalled(Recorder):
    """Gets a second signal while it drains, and goes on for as long as that takes to come."""

    async def drain(self, timeout_s: float) -> None:
        await super().drain(timeout_s)
        came = asyncio.Event()
        asyncio.get_running_loop().call_soon(terminate)
        # A signal comes through the loop, after what is ready now.
        asyncio.get_running_loop().call_later(0.1, came.set)
        await came.wait()
        self.events.append("drained")


async def test_second_signal_does_not_cut_the_drain_of_a_supervised_process_short() -> None:
    application = DrainsUntilSignalled(on_ready=terminate)
    async with asyncio.timeout(PATIENCE_S):
        code = await live(application, ProcessConfig(drain_s=1.0), Stats(), is_supervised=True)
    assert code == 0
    assert application.events == ["start", "announce", "drain 1.0", "drained", "stop", "work ended"]
