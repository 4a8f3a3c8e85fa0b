"""What a call between two nodes costs, on each side.

    python -m bench.rpc                  saves between two processes, many in flight
    python -m bench.rpc --in-flight 1    one at a time: latency

Two processes on loopback; a save of one message of 100 bytes to a service that
does nothing. CPU is that of each process, user and system, per call. "prompt"
answers before the handler returns, as comet does for expire 0; "later" in the
next turn of the loop, as a store does. Beside it what the same bytes cost
without any protocol. On a shared machine compare figures of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from typing import cast

import uvloop

from bench.report import figure, tell
from bench.usage import cpu_s
from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.contracts.message_rpc import SAVE, SERVICE, MessageStub, MessageTimeouts
from cluster.model import Key, Mid
from cluster.rpc.balancer import Balancer
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.methods import Route
from cluster.rpc.server import RpcServer

CLOCK = Mid(17_000_000_000_000_000)
BATCH = SaveBatch(
    Key("user:00001234"),
    [SaveItem("0123456789abcdef0123456789abcdef", b'{"event":"' + b"x" * 88 + b'"}', 600)],
    Mid(0),
    CLOCK,
)
REPLY = SaveReply([SaveResult(Outcome.SAVED, CLOCK, Mid(0))], CLOCK)
US = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="a round")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=("prompt", "later", "echo"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
    else:
        sys.exit(0 if run(options.calls, options.in_flight, options.rounds) else 1)


def run(calls: int, in_flight: int, rounds: int) -> bool:
    """Measure each kind of server and the balancer; whether the figures are as good as promised."""
    return all(
        [
            measure("prompt", calls, in_flight, rounds, calling_us=4.0, serving_us=4.0),
            measure("later", calls, in_flight, rounds),
            measure("echo", calls, in_flight, rounds),
            measure_balancer(rounds),
        ]
    )


def measure(
    kind: str,
    calls: int,
    in_flight: int,
    rounds: int,
    calling_us: float | None = None,
    serving_us: float | None = None,
) -> bool:
    """Calls to one kind of server in a process of its own."""
    server = subprocess.Popen([sys.executable, "-m", "bench.rpc", "--serve", kind], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().decode().strip()
        one_round = echo_round if kind == "echo" else call_round
        figures = [uvloop.run(one_round(address, server.pid, calls, in_flight)) for _ in range(rounds)]
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()
    calling, serving, rate = zip(*figures, strict=True)
    return tell(
        f"RPC, {kind}: {calls} calls, {in_flight} in flight",
        [
            figure("CPU of the caller", calling, "us/call", calling_us),
            figure("CPU of the server", serving, "us/call", serving_us),
            figure("calls", rate, "1/s"),
        ],
    )


async def call_round(address: str, pid: int, calls: int, in_flight: int) -> tuple[float, float, float]:
    """CPU us per call here and there, and calls per second."""
    client = RpcClient(address, SERVICE, RpcConfig())
    client.start()
    stub = MessageStub(client, MessageTimeouts())
    await stub.save(BATCH)
    done = asyncio.get_running_loop().create_future()
    left = calls

    def next_call(finished: asyncio.Future[SaveReply]) -> None:
        nonlocal left
        finished.result()
        left -= 1
        if left >= in_flight:
            stub.save(BATCH).add_done_callback(next_call)
        elif left == 0:
            done.set_result(None)

    def begin() -> None:
        for _ in range(in_flight):
            stub.save(BATCH).add_done_callback(next_call)

    figures = await timed(begin, done, pid, calls)
    await client.stop()
    return figures


async def echo_round(address: str, pid: int, calls: int, in_flight: int) -> tuple[float, float, float]:
    """The same number of bytes in the same bursts, without frames, calls or futures."""
    host, port = address.split(":")
    done = asyncio.get_running_loop().create_future()
    burst = b"x" * 190 * in_flight
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: Burst(len(burst), calls // in_flight, done), host, int(port)
    )
    figures = await timed(lambda: transport.write(burst), done, pid, calls)
    transport.close()
    return figures


async def timed(
    begin: Callable[[], object], done: asyncio.Future[None], pid: int, calls: int
) -> tuple[float, float, float]:
    """Run to the end and read the clocks."""
    await asyncio.sleep(0.05)
    wall, here, there = time.perf_counter(), time.process_time(), cpu_s(pid)
    begin()
    await done
    wall, here = time.perf_counter() - wall, time.process_time() - here
    # The other process must be asleep for its figure to be exact.
    await asyncio.sleep(0.05)
    return here / calls * US, (cpu_s(pid) - there) / calls * US, calls / wall


def measure_balancer(rounds: int) -> bool:
    """Choosing among ten nodes."""

    class Up:
        is_up = True
        is_connecting = False

    balancer = Balancer[Up]()
    balancer.replace({f"message-{number}": (Up(), 1) for number in range(10)})
    keys = [f"user:{number:08d}" for number in range(50_000)]
    for key in keys:
        balancer.choose(key)
    values = []
    for _ in range(rounds):
        began = time.process_time()
        for key in keys:
            balancer.choose(key)
        values.append((time.process_time() - began) / len(keys) * US)
    return tell("Choosing one of ten message nodes", [figure("CPU", values, "us/call", 1.0)])


# -- the other process


async def serve(kind: str) -> None:
    """Serve until terminated; print the address."""
    loop = asyncio.get_running_loop()
    if kind == "echo":
        echo = await loop.create_server(Echo, "127.0.0.1", 0)
        host, port = echo.sockets[0].getsockname()
        print(f"{host}:{port}", flush=True)
    else:
        server = RpcServer(SERVICE, [Route(SAVE, Saver(kind == "later").save)], RpcConfig())
        await server.start()
        print(server.address, flush=True)
    await loop.create_future()


class Saver:
    """Does nothing, now or in the next turn."""

    def __init__(self, is_late: bool) -> None:
        self._is_late = is_late
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[SaveReply]] = []

    def save(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        future: asyncio.Future[SaveReply] = self._loop.create_future()
        if not self._is_late:
            future.set_result(REPLY)
            return future
        if not self._waiting:
            self._loop.call_soon(self._answer)
        self._waiting.append(future)
        return future

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(REPLY)


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Burst(asyncio.Protocol):
    """Sends the next burst when the last one is back."""

    def __init__(self, size: int, bursts: int, done: asyncio.Future[None]) -> None:
        self._burst = b"x" * size
        self._missing = size
        self._left = bursts
        self._done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing:
            return
        self._left -= 1
        if self._left:
            self._missing = len(self._burst)
            self._transport.write(self._burst)
        else:
            self._done.set_result(None)


if __name__ == "__main__":
    main()
