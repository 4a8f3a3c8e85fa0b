"""A real ZooKeeper in a process of its own, on a free loopback port with its own directory.

Driven without the event loop's help, so that one server can serve tests that
each have a loop of their own. In a coroutine: asyncio.to_thread(server.start).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient

# From Debian's libzookeeper-java; its manifest names the other jars.
JAR = Path("/usr/share/java/zookeeper.jar")

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0

# Sessions end at a multiple of it: short, so that tests need not wait.
TICK_MS = 200

# Larger than any znode that a test makes; the servers' own default is 1 MiB.
MAX_ZNODE_BYTES = 16 * 1024 * 1024


class ZooKeeperFailedError(Exception):
    """The server did not become ready; carries what it said."""


class ZooKeeper:
    """One ZooKeeper server. Keeps its port and its data from start to start."""

    def __init__(self, directory: Path) -> None:
        """Describe a server whose files are below the directory."""
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_path = directory / "zookeeper.log"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ZooKeeperFailedError: it ended, or did not answer in time.
        """
        assert self._process is None, "it runs already"
        assert JAR.exists(), "needs Debian's package libzookeeper-java"
        self.data_dir.mkdir(exist_ok=True)
        config = self.directory / "zoo.cfg"
        config.write_text(self._config())
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(config),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise ZooKeeperFailedError(self.log_path.read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power loss would, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(STOP_DEADLINE_S)

    def stop(self) -> None:
        """End it; what it holds is of no more use."""
        self.kill()

    def freeze(self) -> None:
        """Let it do nothing until thaw()."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Delete all that it stores; only while it does not run."""
        assert self._process is None, "it runs"
        shutil.rmtree(self.data_dir)

    def end_session(self, session_id: int) -> None:
        """End the session of any client, which is told that it has expired.

        As a client that takes the session over and closes it, in one write: two that have
        connections for one session take turns in cutting each other off.
        """
        password = password_of(session_id)
        take_over = struct.pack("!iqiqi16s?", 0, 0, 10_000, session_id, len(password), password, False)
        close_session = struct.pack("!ii", 1, -11)
        with socket.create_connection(("127.0.0.1", self.port), STOP_DEADLINE_S) as connection:
            for request in (take_over, close_session):
                connection.sendall(struct.pack("!i", len(request)) + request)
            while connection.recv(4096):
                pass

    def _config(self) -> str:
        settings = {
            "tickTime": TICK_MS,
            "minSessionTimeout": 2 * TICK_MS,
            "maxSessionTimeout": 60_000,
            "dataDir": self.data_dir,
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "maxClientCnxns": 0,
            "4lw.commands.whitelist": "*",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def _command(self, config: Path) -> list[str]:
        # The small heap and the serial collector start quickest and use least.
        return [
            "java",
            "-Xms32m",
            "-Xmx192m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dzookeeper.forceSync=no",
            f"-Djute.maxbuffer={MAX_ZNODE_BYTES}",
            "-cp",
            f"{self.directory}:{JAR}",
            "org.apache.zookeeper.server.ZooKeeperServerMain",
            str(config),
        ]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.settimeout(1.0)
                connection.sendall(b"ruok")
                return connection.recv(16) == b"imok"
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def operator(server: ZooKeeper, client_id: tuple[int, bytes] | None = None) -> Iterator[Any]:
    """Somebody with a client of his own, kazoo's; its calls block, for milliseconds.

    Args:
        client_id: take over the session of another client; it ends with this one.
    """
    client = KazooClient(server.address, timeout=10.0, client_id=client_id)
    client.start(START_DEADLINE_S)
    try:
        yield client
    finally:
        client.stop()
        client.close()


# What ZooKeeper mixes into a session's id to derive its password from, so that every
# server of an ensemble knows the password without being told. Its own sources say that it
# protects against mistakes only.
_SUPER_SECRET = 0xB3415C00


def password_of(session_id: int) -> bytes:
    """The password with which a ZooKeeper lets a client go on with a session."""
    # As java.util.Random.nextBytes() of that seed, whose algorithm its documentation fixes.
    mask = 2**48 - 1
    state = ((session_id ^ _SUPER_SECRET) ^ 0x5DEECE66D) & mask
    password = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & mask
        password += (state >> 16).to_bytes(4, "little")
    return password
