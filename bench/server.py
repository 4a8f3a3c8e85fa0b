"""Runs `encke serve`, or one node, for a measurement: free ports, a directory of its own, gone afterwards."""

from __future__ import annotations

import http.client
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

from bench import usage

COMMAND = (sys.executable, "-m", "encke.cli")

# What each command listens on.
LISTENERS = {
    "serve": ("ws", "tcp", "public", "admin", "status"),
    "comet": ("ws", "tcp", "rpc", "status"),
    "message": ("rpc", "status"),
    "web": ("public", "admin", "status"),
}

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 20.0
STATUS_TIMEOUT_S = 10.0

_LISTENING = re.compile(r"^listening (\S+) (\S+):(\d+)$")


class Server:
    """A running server; ends with the `with` block."""

    def __init__(self, settings: dict[str, str] | None = None, command: str = "serve", *flags: str) -> None:
        """Prepare it.

        Args:
            settings: by environment variable, beside the defaults: {"ENCKE_MESSAGE__DURABILITY": "os"}.
            command: of `encke`; a key of LISTENERS.
            flags: of the command, beside those of the addresses.
        """
        self._settings = settings or {}
        self._command = command
        self._flags = flags
        self._directory = tempfile.TemporaryDirectory(prefix="encke-bench-")
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader: threading.Thread | None = None
        # By kind: "ws", "tcp", "public", "admin", "rpc", "status".
        self.ports: dict[str, int] = {}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self._stop()
            raise
        return self

    def start(self) -> None:
        """Run it until it is ready; once more after kill() or terminate() too."""
        self._start()
        self._wait_ready()

    def kill(self) -> None:
        """kill -9, as a crash."""
        assert self._process is not None
        self._process.kill()
        self._reap(self._process)

    def terminate(self) -> None:
        """Ask it to end; wait_ended() waits for that."""
        assert self._process is not None
        self._process.terminate()

    def wait_ended(self) -> None:
        """Return when it has ended; by force when that takes too long."""
        process = self._process
        assert process is not None
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap(process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def cpu_s(self) -> float:
        """CPU seconds used so far, once the process has become quiet."""
        return usage.quiet_cpu_s(self.pid)

    def resident_bytes(self) -> int:
        """Resident memory, once the process has become quiet."""
        self.cpu_s()
        return usage.resident_bytes(self.pid)

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name with labels, as they are written there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["status"], timeout=STATUS_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        samples: dict[str, float] = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def _start(self) -> None:
        directory = Path(self._directory.name)
        flags = [f"--{kind}-bind=127.0.0.1:0" for kind in LISTENERS[self._command]]
        if self._command == "serve":
            flags += ["--data-dir", str(directory / "data")]
        with (directory / "stderr").open("w") as log:
            self._process = subprocess.Popen(
                [*COMMAND, self._command, *flags, *self._flags],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self._settings},
            )
        # A thread, because a server that hangs says nothing, and a pipe has no read with a deadline.
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"the server is not ready after {START_TIMEOUT_S:g} s") from None
            if line is None:
                raise RuntimeError(f"the server ended: {self._errors()}")
            found = _LISTENING.match(line)
            if found:
                self.ports[found[1]] = int(found[3])
            if line == "ready":
                return

    def _errors(self) -> str:
        return (Path(self._directory.name) / "stderr").read_text()[-2000:]

    def _stop(self) -> None:
        if self._process is not None:
            self.terminate()
            self.wait_ended()
        self._directory.cleanup()

    def _reap(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
        # The word of the end, and what was said before it.
        while not self._lines.empty():
            self._lines.get_nowait()
