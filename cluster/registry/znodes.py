"""What stands in a znode: the text of an instance, in the form that existing tools of gopush-cluster read.

``{"rpc":["host:port"],"tcp":[...],"ws":[...],"weight":1}`` for comet nodes,
``{"rpc":["host:port"],"weight":1}`` for message nodes. The other fields are
ours; who does not know them ignores them, and so do we with fields that a
later version may add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.addresses import is_loopback, split_address
from cluster.model import NodeInfo, NodeKind, NodeName

# An entry of ours has some hundred bytes. What is larger is not fetched at all.
MAX_ZNODE_BYTES = 64 * 1024

# As [comet] weight allows. The ring has points in proportion: a huge weight would fill the memory.
MAX_WEIGHT = 1000

MAX_NAME_CHARS = 255

# Fields of the original, by kind: always written, if only as empty lists, for its tools.
_ALWAYS = {
    NodeKind.COMET: ("rpc", "tcp", "ws"),
    NodeKind.MESSAGE: ("rpc",),
    NodeKind.WEB: (),
}
# In those an address must be.
_NEEDED = {NodeKind.COMET: ("rpc",), NodeKind.MESSAGE: ("rpc",), NodeKind.WEB: ()}
# And in one of these, for a comet node: it may do without one of its listeners.
_SUBSCRIBERS = ("tcp", "ws")
_PURPOSES = ("rpc", "tcp", "ws", "public", "admin", "status")

# Other nodes connect there: "the host you reached me by" has no meaning.
_NEEDS_HOST = ("rpc",)
# Addresses of everybody, that is of nobody in particular.
_NO_HOST = ("0.0.0.0", "::")


class BadZnodeError(ValueError):
    """The text cannot be used; says why, in words for an operator."""


def encode_znode(info: NodeInfo) -> bytes:
    """The text that announces an instance.

    Raises:
        BadZnodeError: others would not take it.
    """
    unknown = set(info.addresses) - set(_PURPOSES)
    if unknown:
        raise BadZnodeError(f"{', '.join(sorted(unknown))}: not known as addresses")
    text = msgspec.json.encode(
        {
            **dict.fromkeys(_ALWAYS[info.kind], ()),
            **info.addresses,
            "weight": info.weight,
            "name": info.name,
            "draining": info.is_draining,
            "version": info.version,
            "started_at": info.started_at,
            # Tells a run's own entry when the answer to its creation was lost.
            "run": info.instance,
        }
    )
    if info.kind is NodeKind.COMET and (not info.name or "/" in info.name or info.name in (".", "..")):
        raise BadZnodeError(f"name: {info.name!r} cannot be part of a path")
    decode_znode(info.kind, info.name, "", text)
    return text


def decode_znode(kind: NodeKind, name: str, instance: str, text: bytes) -> NodeInfo:
    """Read the text of an instance.

    Args:
        name: what its place says; a message or web node may name itself otherwise.
        instance: its incarnation, for the result.

    Raises:
        BadZnodeError: it cannot be used.
    """
    fields = _fields(text)
    if kind is not NodeKind.COMET:
        name = _text(fields, "name") or name
    if not name.isprintable() or len(name) > MAX_NAME_CHARS:
        raise BadZnodeError(f"name: must be at most {MAX_NAME_CHARS} printable characters")
    return NodeInfo(
        kind=kind,
        name=NodeName(name),
        instance=instance,
        addresses=_addresses(kind, fields),
        weight=_weight(fields),
        is_draining=fields.get("draining") is True,
        version=_text(fields, "version"),
        started_at=_number(fields, "started_at"),
    )


def run_of(text: bytes) -> str:
    """The run that wrote a text; empty when it says none."""
    try:
        return _text(_fields(text), "run")
    except BadZnodeError:
        return ""


def is_left_behind(entry: NodeInfo, info: NodeInfo) -> bool:
    """Whether an entry is that of an earlier process of this node: its name, at exactly its addresses.

    Addresses that every machine has prove nothing: with the defaults, web nodes on
    two machines have the same name and the same addresses. A comet node's name is
    its own in the cluster, and when it is called on loopback, so is its machine.
    """
    return (
        entry.name == info.name
        and entry.addresses == info.addresses
        and (info.kind is NodeKind.COMET or any(map(_is_one_machines, _all_addresses(info))))
    )


def _all_addresses(info: NodeInfo) -> list[str]:
    return [address for addresses in info.addresses.values() for address in addresses]


def _is_one_machines(address: str) -> bool:
    host, _ = split_address(address)
    return bool(host) and not is_loopback(host)


def _fields(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_ZNODE_BYTES:
        raise BadZnodeError(f"larger than {MAX_ZNODE_BYTES} bytes")
    try:
        fields = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadZnodeError("not JSON") from error
    if not isinstance(fields, dict):
        raise BadZnodeError("not a JSON object")
    return fields


def _addresses(kind: NodeKind, fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """By purpose; a purpose without addresses is left out, as the node itself does."""
    found: dict[str, tuple[str, ...]] = {}
    for purpose in _PURPOSES:
        listed = fields.get(purpose)
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise BadZnodeError(f"{purpose}: must be a list of host:port")
        for address in listed:
            _check_address(purpose, address)
        if listed:
            found[purpose] = tuple(listed)
    for purpose in _NEEDED[kind]:
        if purpose not in found:
            raise BadZnodeError(f"{purpose}: no address")
    if kind is NodeKind.COMET and not found.keys() & _SUBSCRIBERS:
        raise BadZnodeError(f"{', '.join(_SUBSCRIBERS)}: no address")
    return found


def _check_address(purpose: str, address: object) -> None:
    if not isinstance(address, str):
        raise BadZnodeError(f"{purpose}: must be a list of host:port")
    try:
        host, port = split_address(address)
    except ValueError as error:
        raise BadZnodeError(f"{purpose}: {error}") from error
    if port == 0:
        raise BadZnodeError(f"{purpose}: port 0 is nobody's")
    if host in _NO_HOST or (not host and purpose in _NEEDS_HOST):
        raise BadZnodeError(f"{purpose}: {address!r} names no host that others could connect to")
    if not all("!" <= c <= "~" for c in host):
        raise BadZnodeError(f"{purpose}: not a host name: {host!r}")


def _weight(fields: Mapping[str, Any]) -> int:
    weight = fields.get("weight")
    if weight is None:
        raise BadZnodeError("weight: missing")
    # True is an int in Python.
    if type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:
        raise BadZnodeError(f"weight: must be a whole number from 0 to {MAX_WEIGHT}")
    return weight


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS:
        raise BadZnodeError(f"{key}: must be a text of at most {MAX_NAME_CHARS} characters")
    return value


def _number(fields: Mapping[str, Any], key: str) -> float:
    value = fields.get(key, 0.0)
    # Within what a float holds exactly: a longer whole number would not even convert.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise BadZnodeError(f"{key}: must be a number")
    return float(value)
