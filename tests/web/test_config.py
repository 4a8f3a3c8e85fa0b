"""web/config.py: who may reach the admin API."""

from __future__ import annotations

import pytest

from web.config import WebConfig


def test_defaults_are_allowed() -> None:
    assert list(WebConfig().faults()) == []


@pytest.mark.parametrize("bind", ["0.0.0.0:8091", ":8091", "[::]:8091", "10.0.0.1:8091"])
def test_open_admin_address_needs_a_token_or_a_word(bind: str) -> None:
    ((key, text),) = WebConfig(admin_bind=bind).faults()
    assert key == "admin_bind"
    assert "admin_token" in text
    assert list(WebConfig(admin_bind=bind, admin_token="x").faults()) == []
    assert list(WebConfig(admin_bind=bind, admin_insecure=True).faults()) == []


def test_limits_must_fit_each_other() -> None:
    ((key, _),) = WebConfig(max_payload_bytes=4096, max_many_body_bytes=2048).faults()
    assert key == "max_many_body_bytes"
