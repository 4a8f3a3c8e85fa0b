"""web/config.py: what it listens on, and who may reach the admin API."""

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


def test_admin_api_that_is_off_needs_no_token() -> None:
    assert list(WebConfig(admin_bind="").faults()) == []
    assert list(WebConfig(public_bind="").faults()) == []


def test_node_needs_one_of_its_apis() -> None:
    ((key, text),) = WebConfig(public_bind="", admin_bind="").faults()
    assert key == "admin_bind"
    assert "web.public_bind" in text


def test_limits_must_fit_each_other() -> None:
    ((key, _),) = WebConfig(max_payload_bytes=4096, max_many_body_bytes=2048).faults()
    assert key == "max_many_body_bytes"
