"""What `encke serve` suggests to type next."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from encke.config import load_config
from encke.invocation import Invocation

CONFIG = load_config(None)
ADDRESSES = {"public": "0.0.0.0:8090", "admin": "127.0.0.1:8091"}


def test_nothing_is_named_that_is_so_by_default() -> None:
    assert Invocation().suggestion(CONFIG, ADDRESSES) == [
        "try it, in two other terminals:",
        "  encke sub alice",
        """  encke push alice '{"text": "hello"}'""",
    ]


def test_brackets_and_spaces_are_quoted_for_every_shell() -> None:
    invocation = Invocation("/opt/my encke/bin/encke")
    _, sub, push = invocation.suggestion(CONFIG, {"public": "[::1]:8090", "admin": "[::1]:8091"})
    assert sub == "  '/opt/my encke/bin/encke' sub alice --url 'http://[::1]:8090'"
    assert shlex.split(push)[-2:] == ["--url", "http://[::1]:8091"]


def test_token_is_taken_from_the_file_in_whatever_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIG, auth=replace(CONFIG.auth, secrets=("s3cret",)))
    _, sub, _ = Invocation("encke", "my conf.toml").suggestion(config, ADDRESSES)
    assert sub == f"  encke sub alice --token $(encke token alice --config '{tmp_path}/my conf.toml')"
    _, sub, _ = Invocation().suggestion(config, ADDRESSES)
    assert sub == "  encke sub alice --token $(encke token alice)"


def test_admin_token_is_never_shown() -> None:
    config = replace(CONFIG, web=replace(CONFIG.web, admin_token="s3cret"))
    *_, push = Invocation().suggestion(config, ADDRESSES)
    assert push == """  encke push alice '{"text": "hello"}' --admin-token TOKEN"""


def test_nothing_is_suggested_for_a_listener_that_is_off() -> None:
    head = "try it, in another terminal:"
    suggestion = Invocation().suggestion
    assert suggestion(CONFIG, {"public": ADDRESSES["public"]}) == [head, "  encke sub alice"]
    assert suggestion(CONFIG, {"admin": ADDRESSES["admin"]}) == [
        head,
        """  encke push alice '{"text": "hello"}'""",
    ]


def test_subscriber_connects_by_tcp_where_there_is_no_websocket() -> None:
    config = replace(CONFIG, comet=replace(CONFIG.comet, ws_bind=""))
    assert Invocation().suggestion(config, ADDRESSES)[1] == "  encke sub alice --transport tcp"
