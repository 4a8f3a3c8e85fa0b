"""Settings of calls between nodes, as a configuration file gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.config import example, load
from cluster.errors import ConfigError
from cluster.rpc.config import RpcConfig


@dataclass(frozen=True, slots=True)
class Root:
    """A node that calls others."""

    rpc: RpcConfig = field(default_factory=RpcConfig)


def test_shipped_example_holds_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "encke.toml"
    path.write_text(example(Root))

    assert load(Root, path, {}) == Root()


def test_limits_that_contradict_each_other_are_faults() -> None:
    environ = {
        "ENCKE_RPC__SILENCE_S": "1.5",
        "ENCKE_RPC__BACKOFF_FIRST_S": "3",
        "ENCKE_RPC__MAX_FRAME_BYTES": "10",
    }
    with pytest.raises(ConfigError) as raised:
        load(Root, None, environ)

    assert "max_frame_bytes: must be at least" in str(raised.value)
    del environ["ENCKE_RPC__MAX_FRAME_BYTES"]
    with pytest.raises(ConfigError) as raised:
        load(Root, None, environ)
    assert "silence_s: must be at least twice ping_interval_s" in str(raised.value)
    assert "backoff_max_s: must not be below backoff_first_s" in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('accepted_secrets = ["old"]', "accepted_secrets: needs a secret"),
        ('secret = "new"\naccepted_secrets = ["old", ""]', "accepted_secrets: must not be empty"),
    ],
)
def test_accepted_secrets_without_meaning_are_faults(tmp_path: Path, lines: str, fault: str) -> None:
    path = tmp_path / "encke.toml"
    path.write_text(f"[rpc]\n{lines}\n")
    with pytest.raises(ConfigError, match=fault):
        load(Root, path, {})


def test_secret_is_not_shown_in_faults() -> None:
    with pytest.raises(ConfigError) as raised:
        load(Root, None, {"ENCKE_RPC__SECRET": "two\nlines of secret"})

    assert "lines of secret" not in str(raised.value)
