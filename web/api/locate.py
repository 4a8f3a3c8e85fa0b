"""Tells a subscriber which server to connect to: GET /server/get and its versions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cluster.addresses import join_address, split_address
from cluster.errors import NoNodeError, RequestError
from cluster.model import NodeInfo
from web.api.dialect import COMPATIBLE, Dialect
from web.codec.params import key_param
from web.codec.payload import json_string
from web.codec.replies import Answer
from web.pushing.owners import Owners
from web.serving.request import Request

# The wire's number of a transport to the purpose of an address.
_TRANSPORTS = {"1": "ws", "2": "tcp"}

# What may stand before the port in a Host header: a name, IPv4, or IPv6 in brackets.
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?", re.ASCII)


class Locator:
    """Answers from the membership alone; asks no other node."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    async def one(self, request: Request, dialect: Dialect) -> Answer:
        """GET /1/server/get, /server/get: {"server":"host:port"}."""

        async def find(params: Mapping[str, str]) -> bytes:
            addresses = self._addresses(request, dialect, params)
            return b'{"server":%b}' % json_string(addresses[0])

        return await dialect.answer(request, find)

    async def every(self, request: Request) -> Answer:
        """GET /2/server/get: {"server":["host:port",...]}."""

        async def find(params: Mapping[str, str]) -> bytes:
            addresses = self._addresses(request, COMPATIBLE, params)
            return b'{"server":[%b]}' % b",".join(json_string(address) for address in addresses)

        return await COMPATIBLE.answer(request, find)

    def _addresses(self, request: Request, dialect: Dialect, params: Mapping[str, str]) -> list[str]:
        """Addresses of the key's node, at least one.

        Raises:
            RequestError: the key or the transport is wrong.
            NoNodeError: nobody serves the key, or not by this transport.
        """
        key = key_param(params.get(dialect.key, ""))
        purpose = _TRANSPORTS.get(params.get(dialect.transport, ""))
        if purpose is None:
            raise RequestError(f"{dialect.transport} must be 1 (WebSocket) or 2 (TCP)")
        return reachable_addresses(self._owners.membership.owner(key), purpose, request)


def reachable_addresses(node: NodeInfo, purpose: str, request: Request) -> list[str]:
    """Addresses of a node for one purpose; where it tells no host, the one at which the client reached us.

    Raises:
        NoNodeError: it has none.
    """
    addresses = node.addresses.get(purpose)
    if not addresses:
        raise NoNodeError(f"{node.name} has no address for {purpose}")
    return [_with_host(address, request) for address in addresses]


def _with_host(address: str, request: Request) -> str:
    host, port = split_address(address)
    if host:
        return address
    # The header is the client's word about itself and goes back to nobody else.
    asked = _HOST.fullmatch(request.headers.get("Host", ""))
    return f"{asked[1]}:{port}" if asked else join_address(request.local_host or "127.0.0.1", port)
