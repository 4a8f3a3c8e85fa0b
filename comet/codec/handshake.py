"""The WebSocket upgrade: a client's HTTP request in, the 101 or an HTTP error out (RFC 6455, 4.2).

Reads no more of HTTP than an upgrade needs: a general parser would be a
dependency more and not faster, because a subscription has one small request
(bench/connections.py).
"""

from __future__ import annotations

import binascii
import re
from urllib.parse import unquote_to_bytes

import msgspec

from comet.codec.protocol import ClientVersion, Subscribe, client_version, parse_subscribe

try:
    # CPython's own. That of hashlib is OpenSSL's, which looks up the algorithm and allocates
    # at every call: 5 of 45 us of a subscription (bench/connections.py).
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha1

# Request line and headers together.
MAX_REQUEST_BYTES = 8192
PATH = "/sub"

# 16 bytes in base64.
_NONCE = re.compile(r"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Headers that may stand twice because they are lists (RFC 9110), and those that may not because they decide.
_LISTS = frozenset({"connection", "sec-websocket-protocol", "upgrade"})
_SINGLE = frozenset({"content-length", "host", "origin", "sec-websocket-key", "sec-websocket-version"})
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"%bSec-WebSocket-Accept: %b\r\n\r\n"
)
_PARAMETERS = ("key", "heartbeat", "token", "ver", "mid", "dev")


class Upgrade(msgspec.Struct, frozen=True, gc=False):
    """A good request."""

    # The 101, to be sent before anything else.
    response: bytes
    # Undecoded, for read_query().
    query: str
    # Bytes that the request took; what follows are frames.
    size: int


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer after which the connection ends."""

    response: bytes


def read_request(data: bytes, origins: tuple[str, ...]) -> Upgrade | Rejection | None:
    """Read the request at the beginning of data.

    Args:
        origins: web origins that browsers may come from; empty = any.

    Returns:
        None while more bytes are needed.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_REQUEST_BYTES)
    if end < 0:
        if len(data) >= MAX_REQUEST_BYTES:
            return _reject(431, "request too large")
        # Tells TLS and raw TCP subscribers apart without waiting for the deadline.
        return _reject(400, "not an HTTP request") if data and not 65 <= data[0] <= 90 else None
    lines = data[:end].decode("latin-1").split("\r\n")
    request = lines[0].split(" ")
    if len(request) != 3 or request[2] not in ("HTTP/1.1", "HTTP/1.0"):
        return _reject(400, "malformed request line")
    method, target, http_version = request
    path, _, query = _origin_form(target).partition("?")
    if path != PATH:
        return _reject(404, "no such path")
    if method != "GET":
        return _reject(405, "only GET", "Allow: GET\r\n")
    headers = _read_headers(lines)
    if headers is None or (http_version == "HTTP/1.1" and not headers.get("host")):
        return _reject(400, "malformed headers")
    fault = _find_fault(headers, origins)
    if fault is not None:
        return fault
    return Upgrade(_accept(headers), query, end + 4)


def _origin_form(target: str) -> str:
    # A proxy may ask for the absolute form (RFC 9112, 3.2.2).
    if not target.startswith(("http://", "ws://")):
        return target
    _, slash, rest = target.partition("://")[2].partition("/")
    return slash + rest


def _read_headers(lines: list[str]) -> dict[str, str] | None:
    """Headers by lower-case name; None when one is malformed, or stands twice and must not."""
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        # A space in or around a name, and folded lines, are how requests are smuggled.
        if not colon or not name or " " in name or "\t" in name:
            return None
        name = name.lower()
        if name in headers:
            if name in _SINGLE:
                return None
            if name in _LISTS:
                value = f"{headers[name]},{value}"
        headers[name] = value.strip(" \t")
    text = "".join(lines)
    return None if "\r" in text or "\n" in text or "\0" in text else headers


def _find_fault(headers: dict[str, str], origins: tuple[str, ...]) -> Rejection | None:
    get = headers.get
    if get("content-length", "0") != "0" or "transfer-encoding" in headers:
        # Its body would be read as frames.
        return _reject(400, "a body is not expected")
    if not _has_token(get("upgrade"), "websocket") or not _has_token(get("connection"), "upgrade"):
        return _reject(400, "not a WebSocket request")
    if get("sec-websocket-version") != "13":
        return _reject(400, "unknown WebSocket version", "Sec-WebSocket-Version: 13\r\n")
    if _NONCE.fullmatch(get("sec-websocket-key", "")) is None:
        return _reject(400, "bad Sec-WebSocket-Key")
    origin = get("origin")
    # Absent: not a browser. An empty one names no origin that could be trusted.
    if origin is not None and (not origin or (origins and origin not in origins)):
        return _reject(403, "origin not allowed")
    if "," in get("sec-websocket-protocol", ""):
        return _reject(400, "more than one Sec-WebSocket-Protocol")
    return None


def _has_token(header: str | None, token: str) -> bool:
    if header is None:
        return False
    header = header.lower()
    return header == token or any(part.strip(" \t") == token for part in header.split(","))


def accept_key(nonce: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455, 4.2.2)."""
    return binascii.b2a_base64(sha1(nonce + _GUID, usedforsecurity=False).digest(), newline=False)


def _accept(headers: dict[str, str]) -> bytes:
    protocol = headers.get("sec-websocket-protocol", "")
    return _SWITCHING % (
        # Browsers that ask for a subprotocol give up when none is chosen; what it means is theirs.
        b"Sec-WebSocket-Protocol: %b\r\n" % protocol.encode("latin-1") if protocol else b"",
        accept_key(headers["sec-websocket-key"].encode()),
    )


_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
}


def _reject(status: int, text: str, header: str = "") -> Rejection:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{header}Content-Type: text/plain\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    return Rejection((head + text).encode())


def read_query(query: str) -> tuple[Subscribe | None, ClientVersion]:
    """Read ``key=K&heartbeat=S[&token=T][&ver=V][&mid=M][&dev=D]``; unknown parameters are ignored.

    Args:
        query: undecoded, bytes as Latin-1.

    Returns:
        The subscription, None when a parameter is wrong (Refusal.PARAMETER);
        and the version to speak to this client either way.
    """
    found: dict[str, str] = {}
    is_good = True
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if "%" in name:
            name = unquote_to_bytes(name).decode("latin-1")
        # The first of several counts.
        if name not in _PARAMETERS or name in found:
            continue
        if "%" in value or "+" in value or not value.isascii():
            try:
                value = unquote_to_bytes(value.replace("+", " ").encode("latin-1")).decode()
            except UnicodeDecodeError:
                value, is_good = "", False
        found[name] = value
    version = found.get("ver", "")
    if not is_good:
        return None, client_version(version)
    subscribe = parse_subscribe(
        found.get("key", ""),
        found.get("heartbeat", ""),
        found.get("token", ""),
        version,
        found.get("mid", ""),
        found.get("dev", ""),
    )
    return subscribe, client_version(version) if subscribe is None else subscribe.version
