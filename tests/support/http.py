"""A small HTTP/1.1 client over asyncio streams that shows the bytes as they came.

One connection, kept alive; none of the product's code and no HTTP library, so
that a test sees what the server really sends.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.support.peer import DEADLINE_S, Address, Peer

Headers = dict[str, str]


@dataclass(frozen=True)
class Response:
    """An answer. Header names are in lower case; a repeated one keeps its last value."""

    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class HttpClient:
    """Requests to one listener, one after the other."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._peer: Peer | None = None

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Headers | None = None,
        within: float = DEADLINE_S,
    ) -> Response:
        """Send a request and read its answer; connects when needed, never repeats.

        Raises:
            ConnectionError: the connection ended before the answer was whole.
            TimeoutError: no answer in time.
        """
        lines = {"Host": f"{self._address[0]}:{self._address[1]}", **(headers or {})}
        if body is not None:
            lines["Content-Length"] = str(len(body))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        return await self.raw(head.encode() + (body or b""), has_body=method != "HEAD", within=within)

    async def raw(self, request: bytes, *, has_body: bool = True, within: float = DEADLINE_S) -> Response:
        """Send bytes and read one answer, over "100 Continue"."""
        try:
            async with asyncio.timeout(within):
                if self._peer is None or self._peer.reader.at_eof():
                    await self.close()
                    self._peer = await Peer.connect(self._address)
                await self._peer.send(request)
                response = await read_response(self._peer, has_body)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise ConnectionError(f"no whole answer: {error!r}") from error
        except BaseException:
            await self.close()
            raise
        if response.headers.get("connection", "").lower() == "close":
            await self.close()
        return response

    async def close(self) -> None:
        """Close the connection."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()


async def read_response(peer: Peer, has_body: bool = True) -> Response:
    """Read one answer, over "100 Continue". Its length must be told: nothing here may be chunked."""
    while True:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status = status_line.split(" ")[:2]
        assert version in ("HTTP/1.1", "HTTP/1.0"), status_line
        if status != "100":
            break
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    size = int(headers.get("content-length", "0")) if has_body else 0
    return Response(int(status), headers, await peer.reader.readexactly(size))
