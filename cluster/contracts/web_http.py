"""WebNodeService over HTTP: web nodes have no calls to take, but a status port they have."""

from __future__ import annotations

import asyncio

import msgspec

from cluster.addresses import split_address
from cluster.contracts.web import STATUS_PATH, WebStatus
from cluster.errors import RemoteProtocolError, UnavailableError
from cluster.model import NodeInfo

# The answer has some hundred bytes.
MAX_ANSWER_BYTES = 16 * 1024

_REQUEST = f"GET {STATUS_PATH} HTTP/1.0\r\n\r\n".encode()


class WebStub:
    """A web node at the other end of its status port. Implements WebNodeService."""

    def __init__(self, node: NodeInfo) -> None:
        """Of a registered node. Connects for each question: they are rare."""
        self._node = node

    async def status(self) -> WebStatus:
        """See WebNodeService.status(). The caller bounds the time.

        Raises:
            UnavailableError: it cannot be reached where it says.
            RemoteProtocolError: whoever answers there is not this node.
        """
        address = next(iter(self._node.addresses.get("status", ())), "")
        if not address:
            raise UnavailableError("it has no status port to be asked at: see web.status_bind there")
        host, port = split_address(address)
        if not host:
            raise UnavailableError("no status address is announced: set web.status_advertise there")
        try:
            answer = await _ask(host, port)
        except OSError as error:
            raise UnavailableError(f"{address}: {error.strerror or error}") from error
        except UnicodeError as error:
            # Of a host that cannot be looked up.
            raise UnavailableError(f"{address}: {error}") from error
        head, _, body = answer.partition(b"\r\n\r\n")
        try:
            status = msgspec.json.decode(body, type=WebStatus)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            line = head.partition(b"\r\n")[0].decode("latin-1")
            raise RemoteProtocolError(f"{address}: not the status of a web node: {line[:80]!r}") from error
        if (status.name, status.started_at) != (self._node.name, self._node.started_at):
            raise RemoteProtocolError(f"{address} leads to another node: set web.status_advertise there")
        return status


async def _ask(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_ANSWER_BYTES)
    try:
        writer.write(_REQUEST)
        answer = b""
        while len(answer) < MAX_ANSWER_BYTES and (part := await reader.read(MAX_ANSWER_BYTES)):
            answer += part
        return answer
    finally:
        writer.transport.abort()
