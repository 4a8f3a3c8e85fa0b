"""What each command listens on: the one table behind flags, settings, checks of ports and lines of output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encke.config import EnckeConfig


@dataclass(frozen=True, slots=True)
class Bind:
    """An address that is to be listened on."""

    # What for: "WebSocket subscribers".
    words: str
    address: str
    # How to choose another.
    flag: str
    setting: str


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener, as it is configured."""

    # Its short name, as other nodes and the output call it: "ws".
    purpose: str
    # Of the configuration.
    table: str
    # What for: "WebSocket subscribers".
    words: str

    @property
    def key(self) -> str:
        """Of its address, in its table."""
        return f"{self.purpose}_bind"

    @property
    def flag(self) -> str:
        """Of its address, in a command line."""
        return f"--{self.purpose}-bind"

    @property
    def may_be_off(self) -> bool:
        """A node that nobody can call is none."""
        return self.purpose != "rpc"

    @property
    def off_flag(self) -> str:
        """To do without it, in a command line; the same as an empty address."""
        return f"--no-{self.purpose}"

    def address(self, config: EnckeConfig) -> str:
        """As configured; empty = it is switched off."""
        address = getattr(getattr(config, self.table), self.key)
        assert isinstance(address, str)
        return address

    def bind(self, config: EnckeConfig) -> Bind:
        """The same with words for whoever must change it; of one that is switched on."""
        return Bind(self.words, self.address(config), self.flag, f"{self.table}.{self.key}")


_WS = Listener("ws", "comet", "WebSocket subscribers")
_TCP = Listener("tcp", "comet", "TCP subscribers")
_PUBLIC = Listener("public", "web", "the public HTTP API")
_ADMIN = Listener("admin", "web", "the admin HTTP API")


def status_listener(command: str) -> Listener:
    """The one that every command has: of its process, or of the supervisor of its processes."""
    return Listener("status", command, "health and metrics")


# Purposes of those where the outside world comes in.
OUTSIDE = ("ws", "tcp", "public")

# By command, in the order in which they are told.
LISTENERS = {
    "serve": (_WS, _TCP, _PUBLIC, _ADMIN, status_listener("serve")),
    "comet": (_WS, _TCP, Listener("rpc", "comet", "calls of web nodes"), status_listener("comet")),
    "message": (Listener("rpc", "message", "calls of other nodes"), status_listener("message")),
    "web": (_PUBLIC, _ADMIN, status_listener("web")),
}


def switched_on(listeners: Iterable[Listener], config: EnckeConfig) -> list[Listener]:
    """Those that have an address."""
    return [listener for listener in listeners if listener.address(config)]
