"""The subscriber protocol without I/O: what a subscription asks, what the server says.

Transports differ only in framing: wires.py turns the same words into the bytes
of one transport and one client version. Parsing of what clients send is in
resp.py (TCP) and handshake.py, frames.py and frameinput.py (WebSocket).
"""

from __future__ import annotations

from enum import Enum, IntEnum

import msgspec

from cluster.model import Key, Mid, key_fault

MIN_HEARTBEAT_S = 30
# A longer heartbeat is accepted and counts as this.
MAX_HEARTBEAT_S = 3600
# All connections with one heartbeat share its number: 32 bytes each (bench/connections.py).
_HEARTBEATS_S = tuple(range(MAX_HEARTBEAT_S + 1))
# A client is given this long beyond its own heartbeat.
HEARTBEAT_GRACE_S = 5
MAX_DEVICE_BYTES = 64

HEARTBEAT_LINE = b"+h\r\n"


class ClientVersion(IntEnum):
    """What a client understands."""

    # No version argument: the message is a JSON string that holds the pushed JSON text.
    OLD = 0
    # Any version argument: the message is the pushed JSON itself.
    ONE = 1
    # At least 2: also resume, gaps, close reasons, acknowledgements.
    TWO = 2


class CloseReason(Enum):
    """Why a connection ended: WebSocket close code, words, label in the metrics."""

    DRAINING = (1001, "going away", "draining")
    MOVED = (4001, "another node owns the key now", "moved")
    # Never said (Connection.close()); the code is reserved, because clients know it.
    SLOW_CONSUMER = (4002, "unread data over the limit", "slow_consumer")
    HEARTBEAT_MISSED = (4003, "no heartbeat in time", "heartbeat_missed")
    DELETED = (4004, "the key was deleted", "deleted")
    TOO_MANY = (4005, "too many connections for this key", "too_many")
    BAD_TOKEN = (4401, "token refused or expired", "bad_token")
    # From here on: not announced to TCP clients (is_announced).
    PARAMETER = (1008, "bad parameters", "parameter")
    OVERLOADED = (1013, "node is full", "overloaded")
    PROTOCOL_ERROR = (1002, "protocol error", "protocol_error")
    BAD_UTF8 = (1007, "text is not valid UTF-8", "bad_utf8")
    MESSAGE_TOO_BIG = (1009, "message too big", "message_too_big")
    INTERNAL = (1011, "internal error, resume", "internal")
    PEER_CLOSED = (1000, "", "peer_closed")
    PEER_LOST = (1006, "", "peer_lost")
    HANDSHAKE_TIMEOUT = (1006, "", "handshake_timeout")
    TOO_MANY_TOKENS = (1006, "", "too_many_tokens")

    def __init__(self, code: int, text: str, label: str) -> None:
        self.code = code
        self.text = text
        self.label = label

    @property
    def is_announced(self) -> bool:
        """Whether clients of version 2 know the code (docs/subscriber-protocol.md, reasons)."""
        return self.code == 1001 or self.code >= 4000


class Refusal(Enum):
    """Why a subscription was not accepted: the line of docs/subscriber-protocol.md and the close reason."""

    PARAMETER = (b"-p\r\n", CloseReason.PARAMETER)
    NOT_OWNER = (b"-n\r\n", CloseReason.MOVED)
    OVERLOADED = (b"-c\r\n", CloseReason.OVERLOADED)
    BAD_TOKEN = (b"-a\r\n", CloseReason.BAD_TOKEN)
    # The compatible protocol closes without a line here.
    TOO_MANY = (b"", CloseReason.TOO_MANY)
    DRAINING = (b"-c\r\n", CloseReason.DRAINING)
    # Its address has to wait. Whatever was said would cost a farewell, and -a would be wrong of a good
    # token: its bearer would stay away, or get another in vain.
    TOO_MANY_TOKENS = (b"", CloseReason.TOO_MANY_TOKENS)

    def __init__(self, line: bytes, reason: CloseReason) -> None:
        self.line = line
        self.reason = reason


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """A well-formed subscription."""

    key: Key
    heartbeat_s: int
    token: str
    version: ClientVersion
    # Send what is stored above this first; None = do not; RESUME_ACKNOWLEDGED =
    # above what this device has acknowledged.
    resume: Mid | None
    device: str


# Stands for "mid=ack" in Subscribe.resume; no mid is negative.
RESUME_ACKNOWLEDGED = Mid(-1)


def client_version(text: str) -> ClientVersion:
    """Classify a version argument ("" = none)."""
    if not text:
        return ClientVersion.OLD
    major = text.partition(".")[0]
    if major.isascii() and major.isdigit() and int(major[:9]) >= ClientVersion.TWO:
        return ClientVersion.TWO
    return ClientVersion.ONE


def parse_subscribe(
    key: str, heartbeat: str, token: str = "", version: str = "", resume: str = "", device: str = ""
) -> Subscribe | None:
    """Check the arguments of a subscription, the same for both transports.

    `resume` and `device` are ignored for clients below version 2.

    Returns:
        None when an argument is wrong: the answer is Refusal.PARAMETER.
    """
    if key_fault(key) is not None or not _is_decimal(heartbeat, digits=19):
        return None
    heartbeat_s = int(heartbeat)
    if not MIN_HEARTBEAT_S <= heartbeat_s < 2**63:
        return None
    client = client_version(version)
    from_mid: Mid | None = None
    if client < ClientVersion.TWO:
        device = ""
    elif resume == "ack":
        from_mid = RESUME_ACKNOWLEDGED
    elif resume:
        if not _is_decimal(resume, digits=19) or int(resume) >= 2**63:
            return None
        from_mid = Mid(int(resume))
    if device and (len(device.encode()) > MAX_DEVICE_BYTES or not device.isprintable()):
        return None
    return Subscribe(
        Key(key), _HEARTBEATS_S[min(heartbeat_s, MAX_HEARTBEAT_S)], token, client, from_mid, device
    )


def _is_decimal(text: str, digits: int) -> bool:
    if len(text) <= digits and text.isascii() and text.isdigit():
        return True
    # A sign and leading zeros are what the original accepts.
    text = text.removeprefix("+").lstrip("0") or text[-1:]
    return len(text) <= digits and text.isascii() and text.isdigit()


def message_document(mid: Mid, payload: bytes, version: ClientVersion) -> bytes:
    """The JSON of one message in the shape of a client version."""
    if version:
        return b'{"msg":%b,"mid":%d,"gid":0}' % (payload, mid)
    text = msgspec.json.encode(payload.decode())
    return b'{"msg":%b,"mid":%d,"gid":0}' % (text, mid)


def gap_document(after: Mid, before: Mid | None) -> bytes:
    """The JSON that announces removed messages between two mids."""
    return b'{"gap":{"after":%d,"before":%b}}' % (after, b"null" if before is None else b"%d" % before)
