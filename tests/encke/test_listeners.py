"""encke/listeners.py: the table of listeners against the settings."""

from __future__ import annotations

from dataclasses import fields

import pytest

from encke.config import load_config
from encke.listeners import LISTENERS, Bind


@pytest.mark.parametrize("kind", ["comet", "message", "web"])
def test_node_has_a_listener_for_each_address_that_can_be_configured(kind: str) -> None:
    config = load_config(None)
    keys = {field.name for field in fields(getattr(config, kind)) if field.name.endswith("_bind")}
    assert {listener.key for listener in LISTENERS[kind]} == keys


@pytest.mark.parametrize("command", LISTENERS)
def test_every_listener_has_an_address_and_a_flag_of_its_own(command: str) -> None:
    config = load_config(None)
    binds = [listener.bind(config) for listener in LISTENERS[command]]
    assert len({bind.flag for bind in binds}) == len({bind.address for bind in binds}) == len(binds)


def test_bind_says_what_for_and_how_to_choose_another() -> None:
    assert LISTENERS["serve"][2].bind(load_config(None)) == Bind(
        "the public HTTP API", "0.0.0.0:8090", "--public-bind", "web.public_bind"
    )
