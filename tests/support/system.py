"""A real `encke serve`, or a node of a cluster, in a process of its own, on free loopback ports.

Starting, killing and restarting keep its directory and the ports. The
process is driven without the event loop's help, so that one server can serve
tests that each have a loop of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import resource
import signal
import subprocess
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.support.command import ENCKE
from tests.support.http import HttpClient, Response
from tests.support.peer import Address
from tests.support.subscriber import (
    Subscriber,
    TcpSubscriber,
    WebSocketSubscriber,
    subscribe_tcp,
    subscribe_websocket,
)

START_DEADLINE_S = 30.0
# Longer than the drain's own time.
STOP_DEADLINE_S = 20.0

KINDS = ("ws", "tcp", "public", "admin", "status")
# What each command listens on.
LISTENS_ON = {
    "serve": KINDS,
    "comet": ("ws", "tcp", "rpc", "status"),
    "message": ("rpc", "status"),
    "web": ("public", "admin", "status"),
}
# Words for a server on any free ports.
ANY_PORTS = [f"--{kind}-bind=127.0.0.1:0" for kind in KINDS]
_LISTENING = re.compile(r"listening (\w+) (\S+):(\d+)$")


class ServerFailedError(Exception):
    """The server did not become ready; carries what it said."""


class Server:
    """One server process. Not started by the constructor."""

    def __init__(
        self,
        directory: Path,
        *,
        command: str = "serve",
        config: str = "",
        environ: Mapping[str, str] | None = None,
        flags: tuple[str, ...] = (),
        off: tuple[str, ...] = (),
        descriptor_limit: int = 0,
    ) -> None:
        """Describe a server.

        Args:
            directory: for its data, configuration file and log; made if it is missing.
            command: which of the commands runs it.
            config: text of its configuration file.
            environ: variables on top of this process's.
            off: the listeners that it is to do without.
            descriptor_limit: open files that it may have; 0 = as many as this process.
        """
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_path = directory / "server.log"
        # By kind; known once it has been ready, kept for the next start.
        self.addresses: dict[str, Address] = {}
        self._environ = {**os.environ, **(environ or {})}
        self.command = command
        self._flags = flags
        self._off = off
        self._descriptor_limit = descriptor_limit
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._said: deque[str] = deque(maxlen=1000)
        directory.mkdir(parents=True, exist_ok=True)
        self._config_path = directory / "encke.toml"
        self._config_path.write_text(config)

    # -- its life

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ServerFailedError: it ended or was not ready in time.
        """
        assert self._process is None, "it runs already"
        lines: queue.Queue[str | None] = queue.Queue()
        with self.log_path.open("a") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if self._descriptor_limit:
            limits = (self._descriptor_limit, self._descriptor_limit)
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, limits)
        self._reader = threading.Thread(target=self._read_output, args=(self._process, lines), daemon=True)
        self._reader.start()
        try:
            self._wait_ready(lines)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """SIGTERM; wait for the end; return the exit code."""
        self.terminate()
        return self.wait()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._running().send_signal(signal.SIGTERM)

    def wait(self, within: float = STOP_DEADLINE_S) -> int:
        """Wait for the end; return the exit code."""
        code = self._running().wait(within)
        self._forget()
        return code

    def kill(self) -> None:
        """SIGKILL; does nothing when it does not run."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_DEADLINE_S)
        self._forget()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    @property
    def log(self) -> str:
        """Everything it has logged, over all its runs."""
        return self.log_path.read_text(errors="replace")

    @property
    def output(self) -> list[str]:
        """The last lines of its standard output."""
        return list(self._said)

    # -- what is asked of it

    def http(self, kind: str) -> HttpClient:
        """A client of one of its HTTP listeners: "public", "admin" or "status"."""
        return HttpClient(self.addresses[kind])

    async def ask(
        self,
        kind: str,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request on a connection of its own."""
        client = self.http(kind)
        try:
            return await client.request(method, target, body, headers)
        finally:
            await client.close()

    async def push(self, key: str, payload: object, expire_s: int = 0) -> int:
        """Push a JSON value (or bytes as they are) to a key; return the answer's code."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        target = private_target(key, expire_s)
        response = await self.ask("admin", "POST", target, body)
        assert response.status == 200, response
        ret = response.json["ret"]
        assert isinstance(ret, int)
        return ret

    async def fetch(self, key: str, after: int = 0) -> list[dict[str, Any]]:
        """Stored messages of a key above a mid, as /1/msg/get answers them."""
        response = await self.ask("public", "GET", f"/1/msg/get?k={quote(key, safe='')}&m={after}")
        assert response.status == 200, response
        assert response.json["ret"] == 0, response
        return list(response.json.get("data", {}).get("msgs", []))

    @contextlib.asynccontextmanager
    async def tcp(self, key: str, **options: Any) -> AsyncIterator[TcpSubscriber]:
        """A TCP subscriber that has got its first heartbeat; options as subscribe_tcp()."""
        subscriber = await subscribe_tcp(self.addresses["tcp"], key, **options)
        async with _opened(subscriber):
            yield subscriber

    @contextlib.asynccontextmanager
    async def websocket(self, key: str, **options: Any) -> AsyncIterator[WebSocketSubscriber]:
        """A WebSocket subscriber that has got its first heartbeat; options as subscribe_websocket()."""
        subscriber = await subscribe_websocket(self.addresses["ws"], key, **options)
        async with _opened(subscriber):
            yield subscriber

    @contextlib.asynccontextmanager
    async def subscriber(self, transport: str, key: str, **options: Any) -> AsyncIterator[Subscriber]:
        """A subscriber over "tcp" or "ws"."""
        opened = self.tcp(key, **options) if transport == "tcp" else self.websocket(key, **options)
        async with opened as subscriber:
            yield subscriber

    # -- helpers

    def _command(self) -> list[str]:
        binds: list[str] = []
        for kind in LISTENS_ON[self.command]:
            host, port = self.addresses.get(kind, ("127.0.0.1", 0))
            binds += [f"--no-{kind}"] if kind in self._off else [f"--{kind}-bind", f"{host}:{port}"]
        return [
            *(*ENCKE, self.command),
            *("--config", str(self._config_path)),
            *(("--data-dir", str(self.data_dir)) if self.command == "serve" else ()),
            *binds,
            *self._flags,
        ]

    def _read_output(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._said.append(line.rstrip("\n"))
            lines.put(line.rstrip("\n"))
        lines.put(None)

    def _wait_ready(self, lines: queue.Queue[str | None]) -> None:
        addresses: dict[str, Address] = {}
        while True:
            try:
                line = lines.get(timeout=START_DEADLINE_S)
            except queue.Empty:
                raise ServerFailedError(f"not ready in time: {self._story()}") from None
            if line is None:
                raise ServerFailedError(f"ended before it was ready: {self._story()}")
            if match := _LISTENING.search(line):
                addresses[match[1]] = (match[2], int(match[3]))
            if line.strip() == "ready":
                break
        expected = set(LISTENS_ON[self.command]) - set(self._off)
        assert set(addresses) == expected, f"said where it listens for {set(addresses)}: {self._story()}"
        self.addresses = addresses

    def _story(self) -> str:
        return "\n".join([f"encke {self.command}", *self._said, self.log[-4000:]])

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "it does not run"
        return self._process

    def _forget(self) -> None:
        process, self._process = self._process, None
        if self._reader is not None:
            self._reader.join(STOP_DEADLINE_S)
        if process is not None and process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a server; kill it at the end if it still runs."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


def private_target(key: str, expire_s: int) -> str:
    """Path and query of a push to one key."""
    return "/1/admin/push/private?" + urlencode({"key": key, "expire": expire_s})


@contextlib.asynccontextmanager
async def _opened(subscriber: Subscriber) -> AsyncIterator[None]:
    try:
        await subscriber.open()
        yield
    finally:
        await subscriber.close()
