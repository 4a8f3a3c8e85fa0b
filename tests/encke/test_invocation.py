"""What `encke serve` suggests to type next."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from encke.config import load_config
from encke.invocation import Invocation

CONFIG = load_config(None)


def test_nothing_is_named_that_is_so_by_default() -> None:
    assert Invocation().examples(CONFIG, "0.0.0.0:8090", "127.0.0.1:8091") == [
        "encke sub alice",
        """encke push alice '{"text": "hello"}'""",
    ]


def test_brackets_and_spaces_are_quoted_for_every_shell() -> None:
    invocation = Invocation("/opt/my encke/bin/encke")
    sub, push = invocation.examples(CONFIG, "[::1]:8090", "[::1]:8091")
    assert sub == "'/opt/my encke/bin/encke' sub alice --url 'http://[::1]:8090'"
    assert shlex.split(push)[-2:] == ["--url", "http://[::1]:8091"]


def test_token_is_taken_from_the_file_in_whatever_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIG, auth=replace(CONFIG.auth, secrets=("s3cret",)))
    sub, _ = Invocation("encke", "my conf.toml").examples(config, "0.0.0.0:8090", "127.0.0.1:8091")
    assert sub == f"encke sub alice --token $(encke token alice --config '{tmp_path}/my conf.toml')"
    sub, _ = Invocation().examples(config, "0.0.0.0:8090", "127.0.0.1:8091")
    assert sub == "encke sub alice --token $(encke token alice)"


def test_admin_token_is_never_shown() -> None:
    config = replace(CONFIG, web=replace(CONFIG.web, admin_token="s3cret"))
    _, push = Invocation().examples(config, "0.0.0.0:8090", "127.0.0.1:8091")
    assert push == """encke push alice '{"text": "hello"}' --admin-token TOKEN"""
