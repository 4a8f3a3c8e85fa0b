"""What a live WebSocket subscriber says in its frames: heartbeats and acknowledgements."""

from __future__ import annotations

import re

import msgspec

from cluster.model import Mid
from comet.codec.frames import Close, CloseCode, Event, FrameFailure, FrameMessage, Ping, pong_frame
from comet.codec.protocol import ClientVersion

# Subscribers send heartbeats and acknowledgements, at most 20 bytes each.
MAX_MESSAGE_BYTES = 4096

_ACKNOWLEDGEMENT = re.compile(rb"a([0-9]{1,19})")


class FrameInput(msgspec.Struct, frozen=True, gc=False):
    """What some frames have said."""

    heartbeats: int
    # Answers to pings, framed.
    pongs: bytes
    # The highest of the acknowledgements; one above what was sent shows in it.
    acknowledged: Mid | None
    ending: Close | FrameFailure | None


def read_events(events: list[Event], version: ClientVersion) -> FrameInput:
    """Read what follows the handshake: heartbeats, pings, and acknowledgements of version 2."""
    heartbeats = 0
    pongs: list[bytes] = []
    acknowledged: Mid | None = None
    ending: Close | FrameFailure | None = None
    for event in events:
        if isinstance(event, Ping):
            pongs.append(pong_frame(event.payload))
        elif not isinstance(event, FrameMessage):
            ending = event
        elif event.payload == b"h":
            heartbeats += 1
        elif version >= ClientVersion.TWO and (match := _ACKNOWLEDGEMENT.fullmatch(event.payload)):
            acknowledged = Mid(max(int(match.group(1)), acknowledged or 0))
        else:
            ending = FrameFailure(CloseCode.PROTOCOL_ERROR, "neither a heartbeat nor an acknowledgement")
            break
    return FrameInput(heartbeats, b"".join(pongs), acknowledged, ending)


def is_heartbeat(data: bytes) -> bool:
    """Whether it is one whole masked frame, text or binary, with the payload ``h``."""
    return len(data) == 7 and data[0] in (0x81, 0x82) and data[1] == 0x81 and data[2] ^ data[6] == 0x68
