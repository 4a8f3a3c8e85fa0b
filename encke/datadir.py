"""Finds out before anything is started whether the embedded store's directory can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ConfigError
from message.storage.embedded.directory import SETTING, try_directory

if TYPE_CHECKING:
    from encke.config import EnckeConfig

# How its place is chosen, by the commands that open a store.
_CHOSEN_WITH = {"serve": f"--data-dir or {SETTING}", "message": SETTING}


def directory_faults(config: EnckeConfig, command: str) -> list[str]:
    """Say why a command cannot use its data directory, and what to change; nothing if it has none."""
    chosen_with = _CHOSEN_WITH.get(command)
    if chosen_with is None or config.message.store != "embedded":
        return []
    try:
        try_directory(Path(config.message.data_dir), chosen_with)
    except ConfigError as error:
        return list(error.faults)
    return []
