"""What a server says of itself, a line each: on standard output to a supervisor, on /readyz to `encke ready`.

A line is a value whose text is the line. What the supervisor does not have to
understand, such as the examples of `encke serve`, is said and passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.contracts.message import Guarantee

# Said last, when all listen.
READY = "ready"

_LISTENING = re.compile(r"listening (\w+) (\S+)")
_ROOM = re.compile(r"room for ([\d,]+) subscribers", re.ASCII)
_STORING = re.compile(r"storing under (.+?): (.+)")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a listener is bound."""

    # "ws", as in --ws-bind.
    purpose: str
    # "host:port".
    address: str

    def __str__(self) -> str:
        return f"listening {self.purpose} {self.address}"


@dataclass(frozen=True, slots=True)
class Room:
    """How many subscribers a process can hold."""

    subscribers: int

    def __str__(self) -> str:
        return f"room for {self.subscribers:,} subscribers"


@dataclass(frozen=True, slots=True)
class Storing:
    """What one server of the store promises."""

    location: str
    promise: str

    def __str__(self) -> str:
        return f"storing under {self.location}: {self.promise}"


Line = Listening | Room | Storing


def listening(addresses: Mapping[str, str]) -> list[Listening]:
    """Where a node is bound.

    Args:
        addresses: "host:port" by purpose.
    """
    return [Listening(purpose, address) for purpose, address in addresses.items()]


def storing(guarantees: Iterable[Guarantee]) -> list[Storing]:
    """What the servers of a store promise."""
    return [Storing(guarantee.location, guarantee.promise) for guarantee in guarantees]


def identity(command: str, name: str = "") -> str:
    """A line of /readyz: who answers there. Some commands have the same status port by default.

    Args:
        name: of its node, if it is one.
    """
    return f"encke {command} {name}".rstrip()


def is_another(identity: str, command: str) -> bool:
    """Whether a line of /readyz is the identity of another command."""
    words = identity.split()
    return len(words) > 1 and words[0] == "encke" and words[1] != command


def read_line(text: str) -> Line | str:
    """Take a line, without its end, for what it was when it was written; any other stays text."""
    if match := _LISTENING.fullmatch(text):
        return Listening(match[1], match[2])
    if match := _ROOM.fullmatch(text):
        return Room(int(match[1].replace(",", "")))
    if match := _STORING.fullmatch(text):
        return Storing(match[1], match[2])
    return text
