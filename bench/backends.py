"""Runs ZooKeeper, Redis, MariaDB and nginx for a measurement: free ports, directories of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pymysql

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

# From Debian's libzookeeper-java; its manifest names the other jars.
JAR = Path("/usr/share/java/zookeeper.jar")

# From Debian's libnginx-mod-nchan.
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# ZooKeeper ends sessions at multiples of its tick only: the longer it is, the later.
TICK_MS = 500


class _Backend:
    """A server program; ends with the `with` block."""

    def __init__(self, command: Sequence[str], directory: Path, port: int, question: bytes) -> None:
        """Prepare it.

        Args:
            question: it is ready when it answers this.
        """
        self._command = command
        self._directory = directory
        self._question = question
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        log = self._directory / "log"
        with log.open("wb") as output:
            try:
                self._process = subprocess.Popen(
                    self._command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            except FileNotFoundError:
                raise SystemExit(f"this measurement needs {self._command[0]}; see bench/README.md") from None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError(f"{self._command[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        # What it holds is of no use any more.
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.settimeout(1.0)
                connection.sendall(self._question)
                return bool(connection.recv(64))
        except OSError:
            return False


class ZooKeeper(_Backend):
    """A ZooKeeper with a short tick."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        port = _free_port()
        config = directory / "zoo.cfg"
        config.write_text(
            f"tickTime={TICK_MS}\ndataDir={directory / 'data'}\nclientPort={port}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=ruok\n"
        )
        # The small heap and the serial collector start quickest and use least.
        java = ("java", "-Xms32m", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        main = "org.apache.zookeeper.server.ZooKeeperServerMain"
        super().__init__([*java, "-cp", f"{directory}:{JAR}", main, str(config)], directory, port, b"ruok")
        if not JAR.exists():
            raise SystemExit(f"this measurement needs {JAR}; see bench/README.md")


class Redis(_Backend):
    """A Redis that keeps what it answers."""

    def __init__(self, directory: Path, appendfsync: str) -> None:
        directory.mkdir()
        port = _free_port()
        command = [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", appendfsync),
        ]
        super().__init__(command, directory, port, b"PING\r\n")
        self.url = f"redis://127.0.0.1:{port}/0"


class MariaDb(_Backend):
    """A MariaDB that keeps what it answers; the user root has no password."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._port = port = _free_port()
        data = f"--datadir={directory / 'data'}"
        # Refuses to run as root unless it is told to.
        user = ["--user=root"] if os.geteuid() == 0 else []
        install = ["mariadb-install-db", "--no-defaults", data, "--skip-test-db", *user]
        try:
            subprocess.run(
                [*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True
            )
        except FileNotFoundError:
            raise SystemExit("this measurement needs mariadb-server; see bench/README.md") from None
        command = [
            *("mariadbd", "--no-defaults", data, f"--socket={directory / 'socket'}", f"--port={port}"),
            *("--bind-address=127.0.0.1", f"--pid-file={directory / 'pid'}", "--skip-name-resolve", *user),
        ]
        # It speaks first.
        super().__init__(command, directory, port, b"")

    def make_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        with pymysql.connect(host="127.0.0.1", port=self._port, user="root") as connection:
            connection.cursor().execute(f"CREATE DATABASE {name}")
        return f"mysql://root@127.0.0.1:{self._port}/{name}"


class Nchan(_Backend):
    """nginx with the module nchan; stores nothing.

    Subscribers come by WebSocket and pushes by POST, at the paths that they have at `encke`.
    """

    def __init__(self, directory: Path, channel: str) -> None:
        """Prepare it.

        Args:
            channel: whose subscribers get a push, in nginx's words: "$arg_key", or one for all.
        """
        directory.mkdir()
        port = _free_port()
        config = directory / "nginx.conf"
        config.write_text(_NCHAN_CONFIG.format(module=NCHAN, directory=directory, port=port, channel=channel))
        command = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(config)]
        super().__init__(command, directory, port, b"GET / HTTP/1.0\r\n\r\n")
        if not NCHAN.exists():
            raise SystemExit(f"this measurement needs {NCHAN}; see bench/README.md")


# One process, as `encke serve` is one. Without limits where encke has none.
_NCHAN_CONFIG = """
load_module {module};
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 19900; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    nchan_shared_memory_size 512M;
    nchan_store_messages off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{ nchan_subscriber websocket; nchan_channel_id {channel}; }}
        location /1/admin/push/ {{ nchan_publisher http; nchan_channel_id {channel}; }}
    }}
}}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
