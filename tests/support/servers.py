"""Starts the real Redis and MariaDB for tests: own directories, free loopback ports, own processes only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pymysql

from tests.support.faketime import WallClock, library

START_S = 30.0
STOP_S = 10.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A server program that is started, stopped, frozen and killed by its process id."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        is_ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; start() runs it.

        Args:
            is_ready: asked until it says so.
        """
        self._command = list(command)
        self._directory = directory
        self._is_ready = is_ready
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it and wait until it is ready.

        Raises:
            AssertionError: it ended, or was not ready in time; with the end of its log.
        """
        log = self._directory / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=self._environ, stdout=output, stderr=output
            )
        end = time.monotonic() + START_S
        while not self._is_ready():
            told = log.read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"{self._command[0]} has ended: {told}"
            assert time.monotonic() < end, f"{self._command[0]} is not ready: {told}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Started, and not ended since."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, as a crash of the process."""
        self._signal(signal.SIGKILL)
        self._wait()

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, by force if it does not end itself. May be called more than once."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(STOP_S)
            self._process = None


class RedisServer(ServerProcess):
    """A Redis that keeps everything it answered (appendfsync always), in a time of its own."""

    def __init__(self, directory: Path, *options: str, has_own_time: bool = False) -> None:
        """Describe it.

        Args:
            options: further arguments of redis-server; the last of a name wins.
            has_own_time: its wall clock can be set. Slow: it reads a file at each look at the clock.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.socket = directory / "socket"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.clock = WallClock(directory / "clock")
        command = [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--unixsocket", str(self.socket), "--dir", str(directory), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
            *options,
        ]
        environ = self.clock.environ if has_own_time else {}
        if has_own_time:
            # The server's allocator asks for the time before libfaketime is ready for it; the one
            # of the C library, found first, does not.
            environ["LD_PRELOAD"] = f"{library()} libc.so.6"
        super().__init__(command, directory, self._answers, environ)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.settimeout(1.0)
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class MariaServer(ServerProcess):
    """A MariaDB with an empty data directory; the user root has no password."""

    def __init__(self, directory: Path, *options: str, has_own_time: bool = False) -> None:
        """Describe it; as RedisServer."""
        directory.mkdir(parents=True, exist_ok=True)
        self._data = directory / "data"
        self.port = free_port()
        self.socket = directory / "socket"
        self.clock = WallClock(directory / "clock")
        command = [
            *("mariadbd", "--no-defaults", f"--datadir={self._data}", f"--socket={self.socket}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={directory / 'pid'}"),
            *("--innodb-buffer-pool-size=32M", "--skip-name-resolve"),
            *options,
        ]
        # Refuses to run as root unless it is told to.
        self._user = ["--user=root"] if os.geteuid() == 0 else []
        command += self._user
        environ = self.clock.environ if has_own_time else {}
        super().__init__(command, directory, self._answers, environ)

    def start(self) -> None:
        """Make the data directory at the first start, then as ServerProcess.start()."""
        if not self._data.exists():
            subprocess.run(
                [
                    *("mariadb-install-db", "--no-defaults", f"--datadir={self._data}"),
                    *("--auth-root-authentication-method=normal", "--skip-test-db"),
                    # Also where the machine's own name does not resolve.
                    "--force",
                    *self._user,
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
        super().start()

    def make_database(self, name: str) -> None:
        """Make an empty database, unless it is there."""
        connection = pymysql.connect(unix_socket=str(self.socket), user="root", ssl_disabled=True)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {name}")

    def url(self, database: str) -> str:
        """Where a database of it is."""
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.settimeout(1.0)
                return len(connection.recv(5)) == 5
        except OSError:
            return False
