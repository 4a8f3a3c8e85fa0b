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

    async def start(self, tasks: ServiceTasks) -> None:
        self.events.append("start")
        if self.start_error is not None:
            raise self.start_error
        tasks.spawn("work", self._work())
        asyncio.get_running_loop().call_soon(self.on_ready)
        if self.start_waits:
            await asyncio.Event().wait()

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
            await asyncio.Event().wait()
        finally:
            self.events.append("work ended")


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
    assert application.events == ["start", "drain 1.0", "stop", "work ended"]


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
    assert application.events == ["start", "drain 1.0", "stop"]
    assert "service task work failed" in caplog.text


async def test_drain_that_takes_too_long_is_cut(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.service.DRAIN_GRACE_S", 0.05)
    application = Recorder(on_ready=terminate)
    application.drain_waits = True
    assert await run(application, ProcessConfig(drain_s=0.05)) == 0
    assert application.events == ["start", "drain 0.05", "stop", "work ended"]
    assert "not done in time" in caplog.text


async def test_signal_handlers_are_gone_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await run(Recorder(on_ready=terminate))
    loop = asyncio.get_running_loop()
    assert not loop.remove_signal_handler(signal.SIGTERM)
    assert "SIGTERM: draining" in caplog.text


SLOW_TO_DRAIN = """
import asyncio, sys
from cluster.service import ProcessConfig, run
from cluster.stats import Stats
class Application:
    async def start(self, tasks): print("ready", flush=True)
    async def drain(self, timeout_s):
        print("draining", flush=True)
        await asyncio.Event().wait()
    async def stop(self): pass
sys.exit(run(Application(), ProcessConfig(drain_s=600), Stats()))
"""


def test_second_signal_exits_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_DRAIN], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "draining\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        finally:
            process.kill()


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
    assert application.events == ["start", "drain 1.0", "drained", "stop", "work ended"]
