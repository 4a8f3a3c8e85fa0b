"""Script calls in the server's protocol.

Packed with as few steps as can be: this, handing answers out without a future
and reading them without coroutines took a third off what a save costs us
(bench/stores.py: 28 to 17 us).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from cluster.contracts.message import SaveBatch
from message.storage.redis_scripts import Script

DIGEST_BYTES = 16

# What a call was answered, or why it was not; called exactly once.
OnAnswer = Callable[[Any], None]

# Mids are multiples of 16 and therefore exact as doubles, which is what Lua calculates with.
_TWO_DOUBLES = struct.Struct("<dd")
_HEAD = b"$1\r\n1\r\n" + b"$%d\r\n%b\r\n" * 3
_ITEM = b"$%d\r\n%b\r\n" * 3


class Call:
    """One script call, and who waits for it."""

    __slots__ = ("count", "has_body", "on_answer", "packed", "script", "sent_at")

    def __init__(self, script: Script, count: int, packed: bytes, on_answer: OnAnswer) -> None:
        self.script = script
        # Of the arguments, the number of keys and the keys among them.
        self.count = count
        self.packed = packed
        self.on_answer = on_answer
        # The server did not know the script: send its text.
        self.has_body = False
        # Loop time of the write.
        self.sent_at = 0.0

    def pack(self) -> bytes:
        """The call in the server's protocol."""
        name, text = (b"EVAL", self.script.body) if self.has_body else (b"EVALSHA", self.script.sha)
        head = (self.count + 2, len(name), name, len(text), text, self.packed)
        return b"*%d\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % head


def pack_arguments(arguments: Iterable[bytes]) -> bytes:
    """Arguments in the server's protocol."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments])


def pack_save(batch: SaveBatch, bound: bytes) -> tuple[int, bytes]:
    """The arguments of redis_scripts.SAVE: how many, its only key and their number included, and all of them.

    Few arguments, each made in one go: one by one, and as texts, they cost both sides more.
    """
    key = batch.key.encode()
    head = _TWO_DOUBLES.pack(batch.deadline, batch.sent) + batch.incarnation.encode()
    parts = [_HEAD % (len(key), key, len(bound), bound, len(head), head)]
    for item in batch.items:
        push_id = item.push_id.encode()
        payload = item.payload
        digest = blake2b(payload, digest_size=DIGEST_BYTES).digest()
        about = _TWO_DOUBLES.pack(item.expire_s, item.id_ttl_s) + digest
        parts.append(_ITEM % (len(push_id), push_id, len(about), about, len(payload), payload))
    return 4 + 3 * len(batch.items), b"".join(parts)
