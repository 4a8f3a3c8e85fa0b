"""What the commands that run a server say of its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from encke.commands.running import open_addresses
from encke.config import load_config
from tests.support.command import running_encke
from tests.support.system import LISTENS_ON

WARNING = "and knows a key receives its messages without a token: set auth.secrets"


@pytest.mark.parametrize(
    ("command", "addresses"),
    [
        ("serve", ["0.0.0.0:6968", "0.0.0.0:6969", "0.0.0.0:8090"]),
        ("comet", ["0.0.0.0:6968", "0.0.0.0:6969"]),
        ("web", ["0.0.0.0:8090"]),
        ("message", []),
    ],
)
def test_others_are_asked_for_no_token_where_subscribers_are_served_by_default(
    command: str, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_addresses(load_config(None), command) == addresses
    monkeypatch.setenv("ENCKE_AUTH__SECRETS", "s3cret")
    assert open_addresses(load_config(None), command) == []


def test_loopback_is_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCKE_COMET__WS_BIND", "localhost:0")
    monkeypatch.setenv("ENCKE_COMET__TCP_BIND", "[::1]:0")
    monkeypatch.setenv("ENCKE_WEB__PUBLIC_BIND", "127.0.0.2:0")
    assert open_addresses(load_config(None), "serve") == []


def test_nobody_comes_in_where_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCKE_COMET__TCP_BIND", "")
    monkeypatch.setenv("ENCKE_WEB__PUBLIC_BIND", "")
    assert open_addresses(load_config(None), "serve") == ["0.0.0.0:6968"]


@pytest.mark.parametrize("words", [["serve"], ["serve", "--workers", "1"], ["comet"], ["web"]])
def test_open_server_warns_once_at_its_start(tmp_path: Path, words: list[str]) -> None:
    command = words[0]
    opened = "public" if "public" in LISTENS_ON[command] else "ws"
    hosts = {kind: "0.0.0.0" if kind == opened else "127.0.0.1" for kind in LISTENS_ON[command]}
    binds = [word for kind, host in hosts.items() for word in (f"--{kind}-bind", f"{host}:0")]
    environ = {"ENCKE_REGISTRY__SERVERS": "127.0.0.1:1"}
    # What it says otherwise fits into the pipe.
    with running_encke(*words, *binds, cwd=tmp_path, environ=environ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        warning = next(line for line in lines if WARNING in line)
        process.terminate()
        assert " WARNING " in warning
        assert "whoever reaches 0.0.0.0:0 and" in warning
        assert not [line for line in lines if WARNING in line]
