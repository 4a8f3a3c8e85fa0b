"""Addresses as they stand in configuration, registry and answers: "host:port", and what a host means."""

from __future__ import annotations

import ipaddress

MAX_PORT = 65535
# Characters between two dots of a host; resolvers refuse others.
MAX_LABEL = 63


def split_address(text: str) -> tuple[str, int]:
    """Split "host:port"; an IPv6 host stands in brackets, which are removed; no host = all interfaces.

    Raises:
        ValueError: it is not an address; the text says so to an operator.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'expected "host:port" with an IPv6 host in brackets, got {text!r}')
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f'expected "host:port", got {text!r}')
    if int(port) > MAX_PORT:
        raise ValueError(f"port {port} is above {MAX_PORT}")
    if host and not all(0 < len(label) <= MAX_LABEL for label in host.removesuffix(".").split(".")):
        raise ValueError(f"{host!r} is no host name: each part has 1 to {MAX_LABEL} characters")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The opposite of split_address(); an IPv4 address within IPv6 is told as IPv4."""
    # So the system names IPv4 peers of a socket that serves both families.
    host = host.removeprefix("::ffff:") if "." in host else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unspecified(host: str) -> bool:
    """Whether it means "all interfaces": a host to listen on, none to connect to."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. Names other than localhost count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def advertised_address(advertise: str, bound: str) -> str:
    """The address to tell others: as configured (port 0: the bound port), else the bound one.

    One that is bound to all interfaces is told without its host: "the host you asked".
    """
    host, port = split_address(bound)
    if advertise:
        told_host, told_port = split_address(advertise)
        return join_address(told_host, told_port or port)
    return f":{port}" if is_unspecified(host) else bound
