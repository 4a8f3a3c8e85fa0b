"""One message on its way to connections: encoded at most once per client shape, framed once per wire."""

from __future__ import annotations

import msgspec

from cluster.model import Mid
from comet.codec.protocol import ClientVersion, message_document
from comet.codec.wires import Wire


class Outgoing(msgspec.Struct, eq=False, gc=False):
    """A settled message and its bytes.

    A push of an unsaved payload to many keys uses one of these for all keys
    that get the same mid: framing then costs a comparison per key
    (bench/fanout.py). It holds nothing that could hold it, so the garbage
    collector need not follow it.
    """

    mid: Mid
    payload: bytes
    # The store has it: a connection that must drop it can read it again.
    is_stored: bool
    # The first wire that asked, and its frame: nearly always there is no other.
    _wire: Wire | None = None
    _frame: bytes = b""
    _others: dict[Wire, bytes] | None = None
    # With the payload itself, and with a string of it.
    _document: bytes | None = None
    _text_document: bytes | None = None

    def frame_for(self, wire: Wire) -> bytes:
        """The bytes for connections of a wire."""
        if wire is self._wire:
            return self._frame
        if self._wire is None:
            self._wire = wire
            self._frame = frame = wire.frame(self._document_for(wire.version))
            return frame
        if self._others is None:
            self._others = {}
        other = self._others.get(wire)
        if other is None:
            other = self._others[wire] = wire.frame(self._document_for(wire.version))
        return other

    def _document_for(self, version: ClientVersion) -> bytes:
        # OLD is 0.
        if version:
            if self._document is None:
                self._document = message_document(self.mid, self.payload, version)
            return self._document
        if self._text_document is None:
            self._text_document = message_document(self.mid, self.payload, version)
        return self._text_document
