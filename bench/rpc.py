"""What a call between two nodes costs, on each side.

    python -m bench.rpc                  saves between two processes, many in flight
    python -m bench.rpc --in-flight 1    one at a time: latency

Two processes on loopback; a save of one message of 100 bytes to a service that
does nothing. CPU is that of each process, user and system, per call. "prompt"
answers before the handler returns, as comet does for expire 0; "later" in the
next turn of the loop, as a store does. "bare" is what the same frames and
values cost without deadlines, limits, errors or handlers: the least that they
can. On a shared machine compare figures of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop

from bench.report import figure, tell
from bench.usage import cpu_s
from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.contracts.message_rpc import SAVE, SERVICE, MessageStub, MessageTimeouts
from cluster.model import Key, Mid
from cluster.rpc.balancer import Balancer
from cluster.rpc.client import RpcClient
from cluster.rpc.config import RpcConfig
from cluster.rpc.frames import HEAD, LENGTH, REQUEST_HEAD, frame_head, request_head
from cluster.rpc.methods import Route
from cluster.rpc.server import RpcServer
from encke.commands.arguments import Parser

CLOCK = Mid(17_000_000_000_000_000)
BATCH = SaveBatch(
    Key("user:00001234"),
    [SaveItem("0123456789abcdef0123456789abcdef", b'{"event":"' + b"x" * 88 + b'"}', 600)],
    Mid(0),
    CLOCK,
)
REPLY = SaveReply([SaveResult(Outcome.SAVED, CLOCK, Mid(0))], CLOCK)
US = 1e6
encode = msgspec.msgpack.Encoder().encode


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="a round")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=("prompt", "later", "bare"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
    else:
        sys.exit(0 if run(options.calls, options.in_flight, options.rounds) else 1)


def run(calls: int, in_flight: int, rounds: int) -> bool:
    """Measure each kind of server and the balancer; whether the figures are as good as promised."""
    bare = measure("bare", calls, in_flight, rounds)
    prompt = measure("prompt", calls, in_flight, rounds)
    later = measure("later", calls, in_flight, rounds)
    is_met = tell(
        "RPC: both sides together, in bare calls",
        [
            figure("prompt", [sum(prompt) / sum(bare)], "x", 2.0),
            figure("later", [sum(later) / sum(bare)], "x", 2.5),
        ],
    )
    return measure_balancer(rounds) and is_met


def measure(kind: str, calls: int, in_flight: int, rounds: int) -> tuple[float, float]:
    """Calls to one kind of server in a process of its own; the least CPU us per call on each side."""
    server = subprocess.Popen([sys.executable, "-m", "bench.rpc", "--serve", kind], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().decode().strip()
        one_round = bare_round if kind == "bare" else call_round
        figures = [uvloop.run(one_round(address, server.pid, calls, in_flight)) for _ in range(rounds)]
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()
    calling, serving, rate = zip(*figures, strict=True)
    tell(
        f"RPC, {kind}: {calls} calls, {in_flight} in flight",
        [
            figure("CPU of the caller", calling, "us/call"),
            figure("CPU of the server", serving, "us/call"),
            figure("calls", rate, "1/s"),
        ],
    )
    return min(calling), min(serving)


async def call_round(address: str, pid: int, calls: int, in_flight: int) -> tuple[float, float, float]:
    """CPU us per call here and there, and calls per second."""
    client = RpcClient(address, SERVICE, RpcConfig())
    client.start()
    stub = MessageStub(client, MessageTimeouts())
    await stub.save(BATCH)
    figures = await keep_calling(lambda: stub.save(BATCH), pid, calls, in_flight)
    await client.stop()
    return figures


async def bare_round(address: str, pid: int, calls: int, in_flight: int) -> tuple[float, float, float]:
    """The same without our client."""
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    transport, caller = await loop.create_connection(BareCaller, host, int(port))
    figures = await keep_calling(lambda: caller.call(BATCH), pid, calls, in_flight)
    transport.close()
    return figures


async def keep_calling(
    call: Callable[[], asyncio.Future[SaveReply]], pid: int, calls: int, in_flight: int
) -> tuple[float, float, float]:
    """Keep a number of calls in flight."""
    done = asyncio.get_running_loop().create_future()
    left = calls

    def next_call(finished: asyncio.Future[SaveReply]) -> None:
        nonlocal left
        finished.result()
        left -= 1
        if left >= in_flight:
            call().add_done_callback(next_call)
        elif left == 0:
            done.set_result(None)

    def begin() -> None:
        for _ in range(in_flight):
            call().add_done_callback(next_call)

    return await timed(begin, done, pid, calls)


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
    if kind == "bare":
        bare = await loop.create_server(BareServer, "127.0.0.1", 0)
        host, port = bare.sockets[0].getsockname()
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


class Bare(asyncio.Protocol):
    """Cuts what comes at each frame; bursts arrive in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        size, start = len(data), 0
        while size - start >= 4:
            end = start + 4 + LENGTH.unpack_from(data, start)[0]
            if end > size:
                break
            self.take(data[start + 4 : end])
            start = end
        self._rest = data[start:]
        self.end_turn()

    def take(self, frame: bytes) -> None:
        raise NotImplementedError

    def end_turn(self) -> None:
        pass


class BareServer(Bare):
    """Reads the values and answers."""

    def __init__(self) -> None:
        super().__init__()
        self._out: list[bytes] = []

    def take(self, frame: bytes) -> None:
        _, number, _, _ = REQUEST_HEAD.unpack_from(frame)
        SAVE.decode_arguments(frame[15:])
        payload = encode(REPLY)
        self._out.append(frame_head(len(payload), 2, number) + payload)

    def end_turn(self) -> None:
        self.transport.write(b"".join(self._out))
        self._out.clear()


class BareCaller(Bare):
    """Writes all calls of a turn at once and gives answers to their futures."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._calls: dict[int, asyncio.Future[SaveReply]] = {}
        self._number = 0

    def call(self, batch: SaveBatch) -> asyncio.Future[SaveReply]:
        future: asyncio.Future[SaveReply] = self._loop.create_future()
        self._number += 1
        self._calls[self._number] = future
        payload = encode((batch,))
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(request_head(len(payload), self._number, 1, 5000) + payload)
        return future

    def take(self, frame: bytes) -> None:
        _, number = HEAD.unpack_from(frame)
        self._calls.pop(number).set_result(SAVE.decode_result(frame[9:]))

    def _write(self) -> None:
        self.transport.write(b"".join(self._out))
        self._out.clear()


if __name__ == "__main__":
    main()
