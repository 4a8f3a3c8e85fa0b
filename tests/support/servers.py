"""Starts the real Redis and MariaDB for tests and measurements: own directories, free loopback ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import pymysql

from tests.support.faketime import WallClock, library

# Java is slow to start on a machine with other work.
START_S = 60.0
STOP_S = 10.0
ANSWER_S = 1.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, question: bytes = b"") -> bytes:
    """What is said first at a loopback port, to a question or without one; empty if nothing is."""
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
            connection.sendall(question)
            return connection.recv(64)
    except OSError:
        return b""


class ServerProcess:
    """A server program that is started, frozen and killed by its process id.

    Runs during a `with` block, at whose end it is killed: what it holds is of no use any more.
    Driven without the event loop's help, so that one server can serve tests that each have a
    loop of their own. In a coroutine: asyncio.to_thread(server.start).
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        is_ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; start() runs it.

        Args:
            directory: its working directory, where its log is kept.
            is_ready: asked until it says so.
            environ: variables on top of this process's.
        """
        self._command = list(command)
        self._directory = directory
        self._is_ready = is_ready
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Run it and wait until it is ready; once more after kill() too.

        Raises:
            AssertionError: it ended, or was not ready in time; with the end of its log.
        """
        assert self._process is None, "it runs already"
        log = self._directory / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            end = time.monotonic() + START_S
            while not self._is_ready():
                told = log.read_text(errors="replace")[-2000:]
                assert self.is_running, f"{self._command[0]} has ended: {told}"
                assert time.monotonic() < end, f"{self._command[0]} is not ready: {told}"
                time.sleep(0.02)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Started, and not ended since."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, as a crash of the process; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_S)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


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
        return ask(self.port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


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
        # It speaks first.
        return ask(self.port) != b""
