"""What the server says to a subscriber, and what a subscriber says, without I/O.

The same words travel over WebSocket (one a frame) and TCP (lines and bulk
strings); transports.py does the framing. See docs/subscriber-protocol.md.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from cluster.model import Mid
from encke.client.errors import Ended, ServerError

HEARTBEAT_ANSWER = b"+h"

# Refusal lines and the close code that says the same.
_REFUSALS = {
    b"-p": (1008, "bad parameters"),
    b"-a": (4401, "token refused or expired"),
    b"-n": (4001, "another node owns the key now"),
    b"-c": (1013, "node is full"),
}

Resume = Mid | int | Literal["ack"] | None


class Message(msgspec.Struct, frozen=True):
    """One message of the key."""

    # 100 ns ticks, increasing per key: what `resume` and acknowledge() take.
    mid: Mid
    # The pushed JSON in canonical form.
    payload: bytes

    # Any: what the pusher sent is known to the caller only.
    def json(self) -> Any:
        """Decode the payload. Decoded anew at each call."""
        return msgspec.json.decode(self.payload)


class Gap(msgspec.Struct, frozen=True):
    """Messages with after < mid < before are missing: the store had to drop them to keep its limit.

    Takes its place in the order of messages. Announced again when in doubt,
    never forgotten.
    """

    after: Mid
    # First message that is still stored; None when none is.
    before: Mid | None


class _Document(msgspec.Struct):
    mid: int = 0
    # Empty = absent: `Raw | None` would take null for absent, and null is a message.
    msg: msgspec.Raw = msgspec.Raw()
    gap: Gap | None = None


class Subscription(msgspec.Struct, frozen=True):
    """What a subscriber asks for."""

    key: str
    heartbeat_s: int
    token: str
    device: str
    resume: Resume
    # 2, or 1 for servers that know neither resume nor gaps nor acknowledgements.
    protocol: int = 2

    def query(self) -> str:
        """As the query of a WebSocket address."""
        fields = {"key": self.key, "heartbeat": str(self.heartbeat_s), "ver": f"{self.protocol}.0"}
        if self.token:
            fields["token"] = self.token
        if self.protocol >= 2:
            if self.resume is not None:
                fields["mid"] = str(self.resume)
            if self.device:
                fields["dev"] = self.device
        return urlencode(fields)

    def command(self) -> bytes:
        """As the command of a TCP connection."""
        words = ["sub", self.key, str(self.heartbeat_s), self.token, f"{self.protocol}.0"]
        if self.protocol >= 2:
            words += ["" if self.resume is None else str(self.resume), self.device]
        encoded = [word.encode() for word in words]
        return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)


class WordParser:
    """Turns the server's words into values. Keeps a decoder, which is half of its cost."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Document)

    def parse(self, word: bytes) -> Message | Gap | None:
        """Read one word, without its CRLF; None = the answer to a heartbeat.

        Raises:
            Ended: it says why the connection ends (`-p`, or `-4001 reason` over TCP).
            ServerError: it is no word of the protocol.
        """
        if word.startswith(b"{"):
            return self._document(word)
        if word == HEARTBEAT_ANSWER:
            return None
        if word in _REFUSALS:
            raise Ended(*_REFUSALS[word])
        code, _, reason = word.removeprefix(b"-").partition(b" ")
        if word.startswith(b"-") and code.isdigit() and len(code) == 4:
            raise Ended(int(code), reason.decode(errors="replace"))
        raise ServerError(f"the server sent {word[:40]!r}, which no subscriber protocol knows")

    def _document(self, word: bytes) -> Message | Gap:
        try:
            document = self._decoder.decode(word)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServerError(f"the server sent a message that cannot be read: {error}") from error
        if document.gap is not None:
            return document.gap
        if not bytes(document.msg) or document.mid <= 0:
            raise ServerError("the server sent a message without msg or mid")
        return Message(Mid(document.mid), bytes(document.msg))
