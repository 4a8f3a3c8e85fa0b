"""A container as a process of this machine: started, probed, asked to end, as Docker would."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.compose import Service, seconds
from tests.support.dockerfile import Stage

# The machine is slow, and runs everything at once.
PATIENCE = 3.0


@dataclass(frozen=True)
class Image:
    """Our own: what its Dockerfile says of containers, and where its program is on this machine."""

    stage: Stage
    program: Path
    # Where `import encke` finds what was built.
    packages: Path

    def environ(self, variables: Mapping[str, str], home: Path) -> dict[str, str]:
        """The environment of a container, and none of this process's."""
        ours = {name: value for name, value in self.stage.environment.items() if name != "PATH"}
        # Finds the programs of this machine instead of the image's.
        local = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages), "HOME": str(home)}
        return {**local, **ours, **variables}

    def command(self, words: list[str]) -> list[str]:
        """A command line with the program of this machine."""
        assert words[0] == "encke", words
        return [str(self.program), *words[1:]]


class Container:
    """One service as a process."""

    def __init__(
        self, name: str, service: Service, command: list[str], environ: dict[str, str], work: Path
    ) -> None:
        self.name = name
        self.service = service
        # The working directory; its logs are beside it.
        self.work = work
        self.environ = environ
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        work.mkdir(parents=True, exist_ok=True)

    @property
    def output(self) -> str:
        """Standard output of all its runs."""
        return self._path("out").read_text(errors="replace")

    @property
    def errors(self) -> str:
        """Standard error of all its runs."""
        return self._path("err").read_text(errors="replace")

    def start(self) -> None:
        """Run it."""
        with self._path("out").open("ab") as out, self._path("err").open("ab") as err:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.work,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # Ctrl-C is for the tests; they end it.
                start_new_session=True,
            )
        if self.service.ulimits.nofile is not None:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            limit = min(self.service.ulimits.nofile, most)
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def run(self, command: list[str], within: float) -> subprocess.CompletedProcess[bytes]:
        """Run another command in it, as `docker exec`."""
        return subprocess.run(
            command, cwd=self.work, env=self.environ, capture_output=True, timeout=within, check=False
        )

    def wait_healthy(self, check: list[str]) -> None:
        """Until its healthcheck is content.

        Raises:
            AssertionError: it ended, or was not within the time in which failures do not count.
        """
        health = self.service.healthcheck
        assert health is not None
        end = time.monotonic() + seconds(health.start_period) * PATIENCE
        while fault := self._fault(check, seconds(health.timeout) * PATIENCE):
            assert self._running().poll() is None, f"{self.name} has ended:\n{self.story}"
            assert time.monotonic() < end, f"{self.name} is not healthy: {fault}\n{self.story}"
            time.sleep(0.05)

    def wait_end(self, within: float) -> int:
        """Wait until it ends; return the exit code (128 + signal, as Docker tells it).

        Raises:
            AssertionError: it does not.
        """
        try:
            code = self._running().wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end:\n{self.story}") from None
        self._process = None
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        """Ask it to end, as `docker stop` begins."""
        self._running().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def story(self) -> str:
        """The end of what it said."""
        return f"{self.output[-2000:]}\n{self.errors[-4000:]}"

    def _fault(self, check: list[str], within: float) -> str | None:
        """What a healthcheck has found; None = nothing."""
        try:
            done = self.run(check, within)
        except subprocess.TimeoutExpired:
            return "no answer in time"
        return f"{done.returncode}: {done.stderr!r}" if done.returncode else None

    def _path(self, kind: str) -> Path:
        return self.work.with_suffix(f".{kind}")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        return self._process
