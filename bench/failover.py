"""How long the keys of a comet node are without one, when it crashes and when it is told to end.

A backend pushes to one key of the node, saved, and again as soon as the answer
has come, a little later when it says that it failed. What is told is the longest
time between two successes from the signal on; after kill -9 that is the time to
the first success. Run: python -m bench.cluster failover
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator

from bench.clusters import SESSION_S, TICK_MS, Cluster
from bench.report import Figure, figure, tell
from bench.server import Server

# Beyond the session timeout, which is what a cluster waits before it takes a node for dead.
MAX_CRASH_S = 1.0
MAX_TERM_S = 0.5

PUSH_TIMEOUT_S = 20.0
PAUSE_S = 0.01
# Both must see successes: before the signal, and long enough after it.
BEFORE_S = 0.5
AFTER_CRASH_S = SESSION_S + 6.0
AFTER_TERM_S = 4.0
OWNER_TIMEOUT_S = 30.0


class Backend:
    """Pushes to one key, one push at a time."""

    def __init__(self, web: Server, key: str) -> None:
        self._web = web
        self._target = f"/1/admin/push/private?key={key}&expire=600"
        self._connection: http.client.HTTPConnection | None = None
        self.failures = 0

    def push(self) -> bool:
        """Push once; whether it succeeded."""
        if self._connection is None:
            port = self._web.ports["admin"]
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PUSH_TIMEOUT_S)
        self._connection.request("POST", self._target, b"{}")
        is_done = bool(json.loads(self._connection.getresponse().read())["ret"] == 0)
        self.failures += not is_done
        return is_done

    def successes(self, seconds: float) -> Iterator[float]:
        """Push for some time; the times (monotonic) at which pushes were answered with success."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            is_done = self.push()
            now = time.monotonic()
            if is_done:
                yield now
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def measure(rounds: int) -> list[Figure]:
    """Kill and end a comet node in turn, and start it again."""
    crash_s: list[float] = []
    crash_failures: list[float] = []
    term_s: list[float] = []
    term_failures: list[float] = []
    with Cluster(2) as cluster:
        name = "comet-2"
        node = cluster.nodes[name]
        key = next(key for n in range(1000) if cluster.owner(key := f"k{n}") == name)
        for _ in range(rounds):
            _wait_owner(cluster, key, node)
            gap_s, failures = _outage(cluster.web, key, node, is_crash=True)
            crash_s.append(gap_s - SESSION_S)
            crash_failures.append(failures)
            node.process.start()
            _wait_owner(cluster, key, node)
            gap_s, failures = _outage(cluster.web, key, node, is_crash=False)
            term_s.append(gap_s)
            term_failures.append(failures)
            node.process.start()
    return [
        figure("kill -9: no success, beyond the session timeout", crash_s, "s", MAX_CRASH_S),
        figure("kill -9: pushes that failed meanwhile", crash_failures, ""),
        figure("SIGTERM: longest time without a success", term_s, "s", MAX_TERM_S),
        figure("SIGTERM: pushes that failed meanwhile", term_failures, ""),
    ]


def _outage(web: Server, key: str, node: Server, *, is_crash: bool) -> tuple[float, int]:
    """End a node while pushes run; the longest time without a success from then on, and the failures."""
    with contextlib.closing(Backend(web, key)) as backend:
        for _ in backend.successes(BEFORE_S):
            pass
        backend.failures = 0
        last = time.monotonic()
        gap_s = 0.0
        if is_crash:
            node.process.kill()
        else:
            node.process.terminate()
        seconds = AFTER_CRASH_S if is_crash else AFTER_TERM_S
        for at in backend.successes(seconds):
            gap_s = max(gap_s, at - last)
            last = at
        # The end counts too, if nothing has succeeded up to it.
        gap_s = max(gap_s, time.monotonic() - last)
    if not is_crash:
        node.process.wait()
    return gap_s, backend.failures


def _wait_owner(cluster: Cluster, key: str, node: Server) -> None:
    """Until the web node sends subscribers of the key to the node."""
    deadline = time.monotonic() + OWNER_TIMEOUT_S
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", cluster.web.ports["public"], timeout=5.0)
        with contextlib.closing(connection):
            connection.request("GET", f"/1/server/get?k={key}&p=2")
            answer = json.loads(connection.getresponse().read())
        if answer["ret"] == 0 and answer["data"]["server"].endswith(f":{node.ports['tcp']}"):
            return
        time.sleep(0.05)
    raise RuntimeError("the node did not become the owner of its keys again")


def run(rounds: int) -> bool:
    """Measure and tell; whether the targets are met."""
    title = f"a comet node ends, session timeout {SESSION_S:g} s, tick {TICK_MS} ms"
    return tell(title, measure(rounds))
