"""The two C programs: builds them, starts them, speaks with them.

`load` is the subscribers and the pushing backend, `csend` the baseline server
(what they do stands at the head of load/load.c and load/csend.c). Each takes
one command a line and answers it with one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

HERE = Path(__file__).parent
BIN = HERE / "bin"
SOURCES = {
    "load": ("load.c", "pushers.c", "subscribers.c", "common.c"),
    "csend": ("csend.c", "common.c"),
}
# Between two commands; the programs bound their own waiting below this.
STOP_TIMEOUT_S = 10.0

Wire = Literal["tcp", "ws"]
# nchan: WebSocket to nginx with nchan, for bench/peers.py.
LoadWire = Wire | Literal["nchan"]
Answer = dict[str, float]

# In words.
KINDS: dict[Wire, str] = {"tcp": "TCP", "ws": "WebSocket"}


def build() -> None:
    """Compile what is older than its sources.

    Raises:
        SystemExit: there is no compiler, or it found a fault.
    """
    BIN.mkdir(exist_ok=True)
    newest = max(path.stat().st_mtime for path in (HERE / "load").iterdir())
    for name, sources in SOURCES.items():
        target = BIN / name
        if target.exists() and target.stat().st_mtime > newest:
            continue
        paths = [str(HERE / "load" / source) for source in sources]
        flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra"]
        try:
            subprocess.run(["gcc", *flags, "-o", str(target), *paths], check=True)
        except FileNotFoundError:
            raise SystemExit("the benchmarks need gcc (Debian: apt-get install gcc libc6-dev)") from None
        except subprocess.CalledProcessError:
            raise SystemExit(f"{name} does not compile") from None


class _Program:
    """A running program that answers commands."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [str(BIN / name), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str) -> Answer:
        """Give a command and wait for its answer.

        Raises:
            RuntimeError: the program ended; it has said why on stderr.
        """
        self.begin(command)
        return self.finish()

    def begin(self, command: str) -> None:
        """Give a command; finish() takes its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(f"{self._name} has ended") from None

    def finish(self) -> Answer:
        """Wait for the answer of the last command."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with code {self._process.wait()}")
        answer: Answer = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Load(_Program):
    """Subscribers with a key each, and a backend that pushes to them."""

    # Subscriptions on their way at a time.
    WINDOW = 256

    def __init__(self, wire: LoadWire, subscriber_port: int, admin_port: int = 0, prefix: str = "k") -> None:
        super().__init__("load", wire, str(subscriber_port), str(admin_port), prefix)

    def ports(self, path: Path) -> None:
        """Subscribe elsewhere: a file holds the port of each key, one a line."""
        self.ask(f"ports {path}")

    def open(self, count: int) -> Answer:
        """Subscribe.

        Raises:
            RuntimeError: the server refused some.
        """
        answer = self.ask(f"open {count} {self.WINDOW}")
        if answer["live"] != count:
            raise RuntimeError(f"only {answer['live']:.0f} of {count} subscribers were accepted")
        return answer

    def close(self) -> None:
        """Reset all subscribers."""
        self.ask("close")

    def beat(self) -> Answer:
        """One heartbeat of each subscriber, answered.

        Raises:
            RuntimeError: some were not answered.
        """
        answer = self.ask("beat")
        if answer["lost"]:
            raise RuntimeError(f"{answer['lost']:.0f} subscribers were lost")
        return answer

    def pushers(self, count: int) -> None:
        """Open connections to the admin port."""
        self.ask(f"pushers {count}")

    def push(self, count: int, expire_s: int) -> Answer:
        """Single pushes, one in flight per pusher.

        Raises:
            RuntimeError: some failed, or were not delivered.
        """
        answer = self.ask(f"push {count} {expire_s}")
        if answer["failed"] or answer["delivered"] != count:
            raise RuntimeError(f"not every push was done: {answer}")
        return answer

    def fan(self, expected: int, expire_s: int = 0) -> Answer:
        """One push to all keys.

        Raises:
            RuntimeError: it failed, or was not delivered to everyone.
        """
        answer = self.ask(f"fan {expire_s}")
        if not answer["is_ok"] or answer["delivered"] != expected:
            raise RuntimeError(f"the push did not reach everyone: {answer}")
        return answer


class Baseline(_Program):
    """The server that does nothing but send()."""

    # For one round, which takes well below a second.
    RECEIVE_TIMEOUT_S = 20

    def __init__(self, wire: Wire) -> None:
        super().__init__("csend", wire)
        self.port = int(self.finish()["port"])

    def send(self, load: Load, subscribers: int, rounds: int = 1) -> float:
        """Send to all subscribers of `load`; CPU microseconds per message.

        Raises:
            RuntimeError: not everyone got everything.
        """
        expected = subscribers * rounds
        load.begin(f"receive {expected} {self.RECEIVE_TIMEOUT_S}")
        sent = self.ask(f"send {rounds}")
        received = load.finish()
        if sent["subscribers"] != subscribers or sent["short_writes"] or received["messages"] != expected:
            raise RuntimeError(f"the baseline lost messages: {sent}, {received}")
        return sent["cpu_us"] / expected
