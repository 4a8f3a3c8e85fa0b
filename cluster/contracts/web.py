"""What web nodes ask of each other, for the node listing only: GET /status on the status port."""

from __future__ import annotations

from typing import Protocol

import msgspec

STATUS_PATH = "/status"


class WebStatus(msgspec.Struct, frozen=True):
    """How busy a web node is; as JSON."""

    # Both as announced: a loopback or a shared address may lead to another node than was meant.
    name: str
    started_at: float
    # Of both APIs.
    connections: int
    # Push requests and stream lines since it was started, whatever became of them.
    pushes: int


class WebNodeService(Protocol):
    """A web node."""

    async def status(self) -> WebStatus:
        """Numbers for the node listing."""
        ...
