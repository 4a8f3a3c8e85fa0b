"""A real ZooKeeper in a process of its own, on a free loopback port with its own directory."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient

from tests.support.servers import ServerProcess, ask, free_port

# From Debian's libzookeeper-java; its manifest names the other jars.
JAR = Path("/usr/share/java/zookeeper.jar")

CLIENT_DEADLINE_S = 60.0

# Sessions end at a multiple of it: short, so that tests need not wait.
TICK_MS = 200

# Larger than any znode that a test makes; the servers' own default is 1 MiB.
MAX_ZNODE_BYTES = 16 * 1024 * 1024


class ZooKeeper(ServerProcess):
    """One ZooKeeper server. Keeps its port and its data from start to start."""

    def __init__(self, directory: Path, *options: str, tick_ms: int = TICK_MS) -> None:
        """Describe a server whose files are below the directory.

        Args:
            options: further arguments of java; the last of a name wins.
            tick_ms: sessions end at a multiple of it.
        """
        assert JAR.exists(), "needs Debian's package libzookeeper-java"
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._data = directory / "data"
        config = directory / "zoo.cfg"
        config.write_text(self._config(tick_ms))
        command = [
            # The small heap and the serial collector start quickest and use least.
            *("java", "-Xms32m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-Dzookeeper.forceSync=no", f"-Djute.maxbuffer={MAX_ZNODE_BYTES}", *options),
            *("-cp", f"{directory}:{JAR}", "org.apache.zookeeper.server.ZooKeeperServerMain", str(config)),
        ]
        super().__init__(command, directory, self._answers)

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    def wipe(self) -> None:
        """Delete all that it stores; only while it does not run."""
        assert not self.is_running
        shutil.rmtree(self._data)

    def end_session(self, session_id: int) -> None:
        """End the session of any client, which is told that it has expired.

        As a client that takes the session over and closes it, in one write: two that have
        connections for one session take turns in cutting each other off.
        """
        password = password_of(session_id)
        take_over = struct.pack("!iqiqi16s?", 0, 0, 10_000, session_id, len(password), password, False)
        close_session = struct.pack("!ii", 1, -11)
        with socket.create_connection(("127.0.0.1", self.port), CLIENT_DEADLINE_S) as connection:
            for request in (take_over, close_session):
                connection.sendall(struct.pack("!i", len(request)) + request)
            while connection.recv(4096):
                pass

    def _config(self, tick_ms: int) -> str:
        settings = {
            "tickTime": tick_ms,
            "minSessionTimeout": 2 * tick_ms,
            "maxSessionTimeout": 60_000,
            "dataDir": self._data,
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "maxClientCnxns": 0,
            "4lw.commands.whitelist": "*",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def _answers(self) -> bool:
        return ask(self.port, b"ruok") == b"imok"


@contextlib.contextmanager
def operator(server: ZooKeeper, client_id: tuple[int, bytes] | None = None) -> Iterator[Any]:
    """Somebody with a client of his own, kazoo's; its calls block, for milliseconds.

    Args:
        client_id: take over the session of another client; it ends with this one.
    """
    client = KazooClient(server.address, timeout=10.0, client_id=client_id)
    client.start(CLIENT_DEADLINE_S)
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
