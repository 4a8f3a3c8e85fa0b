"""How the operator has started `encke serve`, and what can be typed next to see a message arrive."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
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

    def suggestion(self, config: EnckeConfig, addresses: Mapping[str, str]) -> list[str]:
        """Lines that tell a newcomer what to paste into a shell, in whatever directory.

        Args:
            addresses: of the public and the admin API by purpose, as they were bound; what is switched off
                is not there. One of them is.
        """
        examples = []
        if public := addresses.get("public"):
            examples.append(self._subscribing(config, public))
        if admin := addresses.get("admin"):
            examples.append(self._pushing(config, admin))
        where = "two other terminals" if len(examples) > 1 else "another terminal"
        return [f"try it, in {where}:", *(f"  {example}" for example in examples)]

    def _subscribing(self, config: EnckeConfig, public: str) -> str:
        program = shlex.quote(self.program)
        file = f" --config {shlex.quote(os.path.abspath(self.config_file))}" if self.config_file else ""
        token = f" --token $({program} token alice{file})" if config.auth.secrets else ""
        transport = "" if config.comet.ws_bind else " --transport tcp"
        return f"{program} sub alice{transport}{token}{_url(public, '127.0.0.1:8090')}"

    def _pushing(self, config: EnckeConfig, admin: str) -> str:
        # Not the token itself: the output of a server is kept in logs.
        token = " --admin-token TOKEN" if config.web.admin_token else ""
        url = _url(admin, "127.0.0.1:8091")
        return f'{shlex.quote(self.program)} push alice \'{{"text": "hello"}}\'{token}{url}'


def _url(address: str, default: str) -> str:
    host, port = split_address(address)
    reachable = join_address("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)
    # Some shells take the brackets of an IPv6 address for a pattern of file names.
    return "" if reachable == default else f" --url {shlex.quote(f'http://{reachable}')}"
