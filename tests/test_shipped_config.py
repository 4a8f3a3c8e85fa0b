"""docker/encke.toml, the file that is the manual of all settings."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from cluster.config import changed, example, load
from cluster.settings import settings_of
from encke.config import EnckeConfig

SHIPPED = Path(__file__).parents[1] / "docker" / "encke.toml"


def test_shipped_file_loads_and_equals_the_defaults() -> None:
    config = load(EnckeConfig, SHIPPED, {})
    assert list(changed(config)) == []


def test_shipped_file_documents_every_setting() -> None:
    # `encke config example > docker/encke.toml` brings it up to date.
    assert SHIPPED.read_text() == example(EnckeConfig)


def test_every_setting_says_what_it_does() -> None:
    config = load(EnckeConfig, None, {})
    silent = [
        f"{table.name}.{setting.key}"
        for table in fields(EnckeConfig)
        for setting in settings_of(table.name, type(getattr(config, table.name)))
        if len(setting.doc) < 10
    ]
    assert silent == []


def test_every_number_has_a_least_value() -> None:
    # Without one, a 0 that means nothing is taken, and something waits for ever.
    config = load(EnckeConfig, None, {})
    boundless = [
        f"{table.name}.{setting.key}"
        for table in fields(EnckeConfig)
        for setting in settings_of(table.name, type(getattr(config, table.name)))
        if type(setting.default) in (int, float) and setting.minimum is None
    ]
    assert boundless == []
