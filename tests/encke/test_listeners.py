"""encke/listeners.py: the table of listeners against the settings."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cluster.settings import settings_of
from encke.config import load_config
from encke.listeners import LISTENERS, Bind, switched_on


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


@pytest.mark.parametrize("command", LISTENERS)
def test_a_listener_can_be_switched_off_where_its_setting_may_be_empty(command: str) -> None:
    config = load_config(None)
    for listener in LISTENERS[command]:
        table = type(getattr(config, listener.table))
        (setting,) = (one for one in settings_of(listener.table, table) if one.key == listener.key)
        assert listener.may_be_off == setting.may_be_off, listener


def test_those_with_an_address_are_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCKE_COMET__TCP_BIND", "")
    monkeypatch.setenv("ENCKE_SERVE__STATUS_BIND", "")
    on = switched_on(LISTENERS["serve"], load_config(None))
    assert [listener.purpose for listener in on] == ["ws", "public", "admin"]
