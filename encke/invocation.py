"""How the operator has started `encke serve`, and what can be typed next to see a message arrive."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from cluster.addresses import join_address, split_address
from encke.config import EnckeConfig


@dataclass(frozen=True, slots=True)
class Invocation:
    """What was typed, as far as the next commands need it."""

    # For the command itself.
    program: str = "encke"
    # Of --config; empty = none.
    config_file: str = ""

    def examples(self, config: EnckeConfig, public: str, admin: str) -> list[str]:
        """What a newcomer can paste into a shell, in whatever directory.

        Args:
            public: address of the public API, as it was bound; admin likewise.
        """
        program = shlex.quote(self.program)
        file = f" --config {shlex.quote(os.path.abspath(self.config_file))}" if self.config_file else ""
        token = f" --token $({program} token alice{file})" if config.auth.secrets else ""
        # Not the token itself: the output of a server is kept in logs.
        admin_token = " --admin-token TOKEN" if config.web.admin_token else ""
        return [
            f"{program} sub alice{token}{_url(public, '127.0.0.1:8090')}",
            f'{program} push alice \'{{"text": "hello"}}\'{admin_token}{_url(admin, "127.0.0.1:8091")}',
        ]


def _url(address: str, default: str) -> str:
    host, port = split_address(address)
    reachable = join_address("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)
    # Some shells take the brackets of an IPv6 address for a pattern of file names.
    return "" if reachable == default else f" --url {shlex.quote(f'http://{reachable}')}"
