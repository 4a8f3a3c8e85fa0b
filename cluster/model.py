"""Values and id types that every node uses. Frozen: a changed value is a new value."""

from __future__ import annotations

from enum import Enum
from typing import NewType

import msgspec

# The subscriber's name: 1 to 512 bytes of UTF-8 without control characters,
# compared byte by byte. Checked once at each door with key_fault().
Key = NewType("Key", str)

# Message id: 100 ns ticks since the Unix epoch, a multiple of mids.STEP,
# increasing per key. 0 = before every message.
Mid = NewType("Mid", int)

# Name of a node on the ring. Several instances may stand under one name.
NodeName = NewType("NodeName", str)

# Order of membership snapshots: (creation of the registry's root, its highest
# change). Compared as a tuple: a registry that was made anew counts as later.
Epoch = tuple[int, int]

MAX_KEY_BYTES = 512


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a key."""

    mid: Mid
    # Canonical JSON (web/codec/payload.py): compact, valid UTF-8, no raw line breaks,
    # so it can stand inside any frame as it is.
    payload: bytes
    # Unix seconds of the store's clock; 0 = not stored (a push with expire 0).
    expires_at: int = 0


class NodeKind(Enum):
    COMET = "comet"
    MESSAGE = "message"
    WEB = "web"


class NodeInfo(msgspec.Struct, frozen=True):
    """What one instance of a node tells the registry about itself."""

    kind: NodeKind
    name: NodeName
    # Unique per registration (the registry session); fences use it.
    instance: str
    # Purpose ("ws", "tcp", "rpc", "public", "admin", "status") to the advertised
    # "host:port" addresses. An empty host means "the host you reached me by".
    addresses: dict[str, tuple[str, ...]]
    # Share of the ring relative to the other nodes; 0 = holds no keys.
    weight: int = 1
    # Out of the ring but still registered: it finishes its work.
    is_draining: bool = False
    version: str = ""
    # Unix seconds.
    started_at: float = 0.0


class StoreServer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One server of a store."""

    # Which keys are on it follows from the names and weights of all (cluster/storering.py).
    name: str
    weight: int
    # A lower bound of its clock; 0 = it has never answered.
    clock: Mid


def utf8_size(text: str) -> int:
    """Bytes of a text in UTF-8; -1 when it cannot be encoded."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1


def key_fault(key: str) -> str | None:
    """Say what is wrong with a key, or None when it is good.

    The caller turns the text into the error of its own door.
    """
    if not key:
        return "key is empty"
    if len(key) > MAX_KEY_BYTES:
        return f"key is longer than {MAX_KEY_BYTES} bytes"
    if key.isascii():
        # isprintable() is false for exactly the ASCII control characters and DEL.
        return None if key.isprintable() else "key holds a control character"
    size = utf8_size(key)
    if size < 0:
        return "key is not valid UTF-8"
    if size > MAX_KEY_BYTES:
        return f"key is longer than {MAX_KEY_BYTES} bytes"
    # C0 controls, DEL and C1 controls.
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in key):
        return "key holds a control character"
    return None
