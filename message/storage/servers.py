"""Addresses of store servers: URLs with a weight, told to people without their secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cluster.errors import ConfigError

REDIS_SCHEMES = ("redis", "rediss", "unix")
MYSQL_SCHEMES = ("mysql", "mysqls")


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """One server of a store."""

    # For the driver: without the weight, with the secrets.
    url: str
    # For people, and the server's name on the ring: without the secrets.
    name: str
    weight: int


def read_server_url(text: str, schemes: tuple[str, ...]) -> ServerUrl:
    """Take the weight out of a server's URL, and the secrets out of its name.

    Raises:
        ValueError: the text says what is wrong, without secrets.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"a server's address is not a URL: {error}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"a server's address must begin with {' or '.join(f'{s}://' for s in schemes)}")
    query = parse_qsl(parts.query, keep_blank_values=True)
    weight_text = dict(query).get("weight", "1")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    place = host + (f":{port}" if port is not None else "")
    name = f"{parts.scheme}://{place}{parts.path}"
    if database := dict(query).get("db"):
        name += f"?db={database}"
    if not weight_text.isdecimal() or not 0 < int(weight_text) <= 1000:
        raise ValueError(f"{name}: the weight must be a whole number from 1 to 1000")
    rest = urlencode([(key, value) for key, value in query if key != "weight"])
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, rest, ""))
    return ServerUrl(url, name, int(weight_text))


def server_faults(texts: Sequence[str], schemes: tuple[str, ...]) -> Iterator[str]:
    """Everything that is wrong with a list of servers, without secrets."""
    names: set[str] = set()
    for text in texts:
        try:
            server = read_server_url(text, schemes)
        except ValueError as error:
            yield str(error)
            continue
        if server.name in names:
            yield f"names {server.name} twice"
        names.add(server.name)
    if not texts:
        yield "needs at least one server"


def read_server_urls(texts: Sequence[str], schemes: tuple[str, ...]) -> list[ServerUrl]:
    """The servers of a list.

    Raises:
        ConfigError: with all faults.
    """
    if faults := list(server_faults(texts, schemes)):
        raise ConfigError(faults)
    return [read_server_url(text, schemes) for text in texts]
