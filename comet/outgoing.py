"""One message on its way to connections: encoded at most once per client shape, framed once per wire."""

from __future__ import annotations

from cluster.model import Mid
from comet.protocol import ClientVersion, Wire, message_document


class Outgoing:
    """A settled message and its bytes.

    A push of an unsaved payload to many keys uses one of these for all keys
    that get the same mid: framing then costs a dictionary look-up per key
    (bench/fanout.py).
    """

    __slots__ = ("_documents", "_frames", "is_stored", "mid", "payload")

    def __init__(self, mid: Mid, payload: bytes, is_stored: bool) -> None:
        self.mid = mid
        self.payload = payload
        # The store has it: a connection that must drop it can read it again.
        self.is_stored = is_stored
        self._frames: dict[Wire, bytes] = {}
        # By whether the client gets the payload itself (True) or a string of it.
        self._documents: dict[bool, bytes] = {}

    def frame_for(self, wire: Wire) -> bytes:
        """The bytes for connections of a wire."""
        frame = self._frames.get(wire)
        if frame is None:
            is_raw = wire.version is not ClientVersion.OLD
            document = self._documents.get(is_raw)
            if document is None:
                document = self._documents[is_raw] = message_document(self.mid, self.payload, wire.version)
            frame = self._frames[wire] = wire.frame(document)
        return frame
