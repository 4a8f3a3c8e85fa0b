"""The server's words as bytes: a wire for each transport and client version."""

from __future__ import annotations

from typing import Protocol

from comet.codec.frames import close_frame, text_frame
from comet.codec.protocol import HEARTBEAT_LINE, ClientVersion, CloseReason


class Wire(Protocol):
    """The server's words as bytes of one transport and client version. Shared by all its connections."""

    transport: str
    version: ClientVersion
    # The answer to a heartbeat, framed.
    heartbeat: bytes

    def frame(self, document: bytes) -> bytes:
        """Put one JSON document (message_document(), gap_document()) on the wire."""
        ...

    def line(self, line: bytes) -> bytes:
        """A refusal line, framed."""
        ...

    def farewell(self, reason: CloseReason) -> bytes:
        """What is said before the connection ends; may be empty."""
        ...


class TcpWire:
    """RESP-style lines and bulk strings."""

    transport = "tcp"
    heartbeat = HEARTBEAT_LINE

    def __init__(self, version: ClientVersion) -> None:
        self.version = version

    def frame(self, document: bytes) -> bytes:
        """`$LEN`, CRLF, the document, CRLF: in one piece, because some clients read once per message."""
        return b"$%d\r\n%b\r\n" % (len(document), document)

    def line(self, line: bytes) -> bytes:
        """Lines stand bare."""
        return line

    def farewell(self, reason: CloseReason) -> bytes:
        """`-CODE reason` for version 2, nothing for the others."""
        if self.version < ClientVersion.TWO or not reason.is_announced:
            return b""
        return b"-%d %b\r\n" % (reason.code, reason.text.encode())


def tcp_wires() -> tuple[TcpWire, ...]:
    """A wire for each client version."""
    return tuple(TcpWire(version) for version in ClientVersion)


class WebSocketWire:
    """Text frames, and close frames that tell why."""

    transport = "ws"
    heartbeat = text_frame(HEARTBEAT_LINE)

    def __init__(self, version: ClientVersion) -> None:
        self.version = version

    def frame(self, document: bytes) -> bytes:
        """One text frame."""
        return text_frame(document)

    def line(self, line: bytes) -> bytes:
        """One text frame; no line is no frame."""
        return text_frame(line) if line else b""

    def farewell(self, reason: CloseReason) -> bytes:
        """A close frame: code and words for version 2, for the others a code of RFC 6455 or none."""
        if not reason.text:
            return b""
        if self.version >= ClientVersion.TWO:
            return close_frame(reason.code, reason.text)
        return close_frame(reason.code if reason.code < 3000 else None)


def websocket_wires() -> tuple[WebSocketWire, ...]:
    """A wire for each client version."""
    return tuple(WebSocketWire(version) for version in ClientVersion)
