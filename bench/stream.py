"""What a line of a push stream costs the whole server process.

One stream (POST /2/admin/push/stream), its window always full, to 64 keys in turn and to a
single one, without subscribers; expire 0 and expire 600 (durable before the answer)
take turns. Run: python -m bench.stream [--lines N] [--rounds N]
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from itertools import product

from bench.report import Figure, figure, tell
from bench.server import Server
from encke.commands.arguments import Parser

KEYS = (64, 1)
EXPIRES_S = (0, 600)
# The default, written down because the figures are about it.
SETTINGS = {"ENCKE_MESSAGE__DURABILITY": "fsync"}
READ_BYTES = 256 * 1024
TIMEOUT_S = 60.0
HEAD = (
    b"POST /2/admin/push/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
# So many lines a chunk.
CHUNK_LINES = 64


def measure(lines: int, rounds: int) -> list[Figure]:
    """Push every kind of stream in turn."""
    kinds = list(product(KEYS, EXPIRES_S))
    cpu_us: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    with Server(SETTINGS) as server:
        for _ in range(rounds):
            for keys, expire_s in kinds:
                before = server.cpu_s()
                _push(server.ports["admin"], _body(lines, keys, expire_s), lines)
                cpu_us[keys, expire_s].append((server.cpu_s() - before) / lines * 1e6)
    return [
        figure(f"{_keys(keys)}, expire {expire_s}: CPU of the process per line", values, "us")
        for (keys, expire_s), values in cpu_us.items()
    ]


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count} keys"


def _body(lines: int, keys: int, expire_s: int) -> bytes:
    """A chunked request."""
    texts = [
        json.dumps({"key": f"key-{number % keys}", "msg": {"n": number}, "expire": expire_s}).encode() + b"\n"
        for number in range(lines)
    ]
    chunks = [b"".join(texts[start : start + CHUNK_LINES]) for start in range(0, lines, CHUNK_LINES)]
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def _push(port: int, body: bytes, lines: int) -> None:
    """Send a stream and read its answers.

    Raises:
        RuntimeError: not all lines were done.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        sending = threading.Thread(target=connection.sendall, args=(body,))
        sending.start()
        answers = bytearray()
        while data := connection.recv(READ_BYTES):
            answers += data
        sending.join()
    done = answers.count(b'"failed":[]')
    if done != lines:
        raise RuntimeError(f"{done} of {lines} lines were done: {answers[-200:]!r}")


def run(lines: int, rounds: int) -> bool:
    """Measure and tell."""
    return tell("lines of a push stream", measure(lines, rounds))


if __name__ == "__main__":
    parser = Parser(description="CPU of the lines of a push stream.")
    parser.add_argument("--lines", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    sys.exit(0 if run(arguments.lines, arguments.rounds) else 1)
