"""First bytes of subscribers as nearly all send them, read at once; the rest is for the general readers.

An application's clients write the same bytes on every connect, but for the key
and the nonce. What resp.py and handshake.py made of the rest is therefore
remembered, and a subscription costs a match and a look-up. Nothing is accepted
here that they have not accepted; tokens and mids differ, so they are left to them.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from comet.codec.handshake import MAX_REQUEST_BYTES, Rejection, Upgrade, accept_key, read_query, read_request
from comet.codec.protocol import ClientVersion, Subscribe
from comet.codec.resp import Command, read_command, read_subscribe

# Different options, and different requests around key and nonce, that are
# remembered. Those of all versions of an application's clients are a few; one
# request is some hundred bytes, at most MAX_REQUEST_BYTES.
MAX_REMEMBERED = 128

# Count, size of the key, key, options too short for a token or a mid.
_COMMAND = re.compile(rb"\*([3-7])\r\n\$3\r\nsub\r\n\$([0-9]{1,3})\r\n([ -~]{1,512})\r\n(\$[ -~\r\n]{1,40})")
# Nothing that needs decoding; options as short.
_REQUEST_LINE = re.compile(rb"GET /sub\?key=([\w.~-]{1,512})&[\w.~=&-]{1,40} HTTP/1\.1\r\n")
_NONCE_LINE = re.compile(rb"\r\nSec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n")
_SAMPLE_NONCE = b"dGhlIHNhbXBsZSBub25jZQ=="


class SubscribeReader:
    """Reads usual subscriptions of raw TCP: in 1.3 instead of 4 us (bench/connections.py)."""

    def __init__(self) -> None:
        self._options = lru_cache(MAX_REMEMBERED)(_read_options)

    def read(self, data: bytes) -> Subscribe | None:
        """Read a good subscription that is alone in data; None says nothing about it."""
        match = _COMMAND.fullmatch(data)
        if match is None:
            return None
        count, size, key, tail = match.groups()
        options = self._options(count, tail)
        if options is None or len(key) != int(size):
            return None
        return _subscribe(key, options)


def _read_options(count: bytes, tail: bytes) -> Subscribe | None:
    """Read what follows the key, with a key that stands for all; None when it is not usual."""
    data = b"*%b\r\n$3\r\nsub\r\n$1\r\nk\r\n%b" % (count, tail)
    command = read_command(data)
    if not isinstance(command, Command) or command.size != len(data):
        return None
    subscribe = read_subscribe(command.arguments)
    return None if subscribe is None or subscribe.token else subscribe


class Handshake(msgspec.Struct, frozen=True, gc=False):
    """A good request, and what it asks for."""

    # The 101, to be sent before anything else.
    response: bytes
    # None: a parameter is wrong (Refusal.PARAMETER).
    subscribe: Subscribe | None
    # To speak to this client either way.
    version: ClientVersion
    # Bytes that the request took; what follows are frames.
    size: int


class HandshakeReader:
    """Reads the first bytes of WebSockets: usual ones in 3 instead of 16 us (bench/connections.py)."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """Make a reader.

        Args:
            origins: web origins that browsers may come from; empty = any.
        """
        self._origins = origins
        self._around = lru_cache(MAX_REMEMBERED)(self._read_around)

    def read(self, data: bytes) -> Handshake | Rejection | None:
        """Read the request at the beginning of data; None while more bytes are needed."""
        return self._read_usual(data) or self._read_any(data)

    def _read_usual(self, data: bytes) -> Handshake | None:
        """Read a good request that is alone in data; None says nothing about it."""
        line = _REQUEST_LINE.match(data)
        header = _NONCE_LINE.search(data, line.end() - 2) if line is not None else None
        if line is None or header is None or len(data) > MAX_REQUEST_BYTES:
            return None
        nonce_at, nonce_end = header.span(1)
        around = self._around(data[line.end(1) : nonce_at], data[nonce_end:])
        if around is None:
            return None
        options = around.options
        response = around.before + accept_key(header[1]) + around.after
        return Handshake(response, _subscribe(line[1], options), options.version, len(data))

    def _read_around(self, middle: bytes, end: bytes) -> _Around | None:
        """Read what stands between key and nonce and behind them; None when it is not usual."""
        data = b"GET /sub?key=k%b%b%b" % (middle, _SAMPLE_NONCE, end)
        found = self._read_any(data)
        if not isinstance(found, Handshake) or found.subscribe is None:
            return None
        if found.size != len(data) or found.subscribe.token:
            return None
        # The last: a subprotocol may look like one.
        before, _, after = found.response.rpartition(accept_key(_SAMPLE_NONCE))
        return _Around(before, after, found.subscribe)

    def _read_any(self, data: bytes) -> Handshake | Rejection | None:
        request = read_request(data, self._origins)
        if not isinstance(request, Upgrade):
            return request
        subscribe, version = read_query(request.query)
        return Handshake(request.response, subscribe, version, request.size)


class _Around(msgspec.Struct, frozen=True, gc=False):
    """What requests have in common that differ in key and nonce."""

    # The 101 before and behind its accept key.
    before: bytes
    after: bytes
    # Of a key that stands for all.
    options: Subscribe


def _subscribe(key: bytes, options: Subscribe) -> Subscribe:
    return Subscribe(
        # Not Key(...): a call in Python.
        key.decode(),  # type: ignore[arg-type]
        options.heartbeat_s,
        "",
        options.version,
        options.resume,
        options.device,
    )
