"""Runs `encke serve`, or one node, for a measurement: free ports, a directory of its own, gone afterwards."""

from __future__ import annotations

import http.client
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import usage
from tests.support import system

# What is measured is the code beside this file, whatever is installed.
ENVIRON = {"PYTHONPATH": str(Path(__file__).parents[1])}

STATUS_TIMEOUT_S = 10.0


class Server:
    """A server that runs during a `with` block, and what it uses."""

    def __init__(self, settings: dict[str, str] | None = None, command: str = "serve", *flags: str) -> None:
        """Prepare it.

        Args:
            settings: by environment variable, beside the defaults: {"ENCKE_MESSAGE__DURABILITY": "os"}.
            command: of `encke`.
            flags: of the command, beside those of the addresses.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="encke-bench-")
        # To be ended and started again within the block.
        self.process = system.Server(
            Path(self._directory.name), command=command, environ={**ENVIRON, **(settings or {})}, flags=flags
        )

    def __enter__(self) -> Self:
        try:
            self.process.start()
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self._directory.cleanup()

    @property
    def ports(self) -> dict[str, int]:
        """By kind: "ws", "tcp", "public", "admin", "rpc", "status"."""
        return {kind: port for kind, (_, port) in self.process.addresses.items()}

    @property
    def pid(self) -> int:
        return self.process.pid

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
