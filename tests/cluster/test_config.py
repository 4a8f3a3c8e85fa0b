"""cluster/config.py."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.config import Override, changed, example, load
from cluster.errors import ConfigError


@dataclass(frozen=True)
class Door:
    """Where people come in. More."""

    front_bind: str = field(default="127.0.0.1:80", metadata={"doc": "The front door."})
    back_bind: str = field(default="127.0.0.1:81", metadata={"doc": "The back door.", "may_be_off": True})
    width: int = field(default=3, metadata={"doc": "How wide it is.", "min": 1, "max": 9})
    kind: str = field(default="oak", metadata={"doc": "What it is made of.", "choices": ("oak", "ash")})
    wait_s: float = field(default=2.0, metadata={"doc": "How long it stays open.", "min": 0.5})


@dataclass(frozen=True)
class Lock:
    """What keeps it closed."""

    secrets: tuple[str, ...] = field(default=(), metadata={"doc": "Who may enter.", "secret": True})
    is_open: bool = field(default=True, metadata={"doc": "Whether anybody may enter."})

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.is_open and not self.secrets:
            yield "is_open", "needs a secret"


@dataclass(frozen=True)
class House:
    """A house.

    It has two paragraphs.
    """

    door: Door
    lock: Lock


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "house.toml"
    path.write_text(text)
    return path


def faults_of(
    path: Path | None, environ: Mapping[str, str] | None = None, overrides: tuple[Override, ...] = ()
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(House, path, environ or {}, overrides)
    return list(caught.value.faults)


def test_without_any_source_everything_has_its_default() -> None:
    assert load(House, None, {}) == House(Door(), Lock())


def test_file_then_environment_then_flags_each_wins_over_the_one_before(tmp_path: Path) -> None:
    path = write(tmp_path, '[door]\nwidth = 4\nwait_s = 4\nkind = "ash"\n[lock]\nsecrets = ["a"]\n')
    environ = {"ENCKE_DOOR__WIDTH": "5", "ENCKE_DOOR__WAIT_S": "5.5", "ENCKE_LOCK__IS_OPEN": "false"}
    flags = [Override("--width", "door", "width", "6")]
    house = load(House, path, environ, flags)
    assert house == House(Door(width=6, wait_s=5.5, kind="ash"), Lock(secrets=("a",), is_open=False))


def test_all_faults_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[door]\nwidht = 4\nwidth = 40\nfront_bind = "nowhere"\n\n[loc]\na = 1\n\n[lock]\nis_open = 0\n',
    )
    environ = {"ENCKE_DOOR__WAIT_S": "soon", "ENCKE_DOR__WIDTH": "1", "ENCKE_HOME": "/", "PATH": "a__b"}
    assert faults_of(path, environ, (Override("--kind", "door", "kind", "tin"),)) == [
        f"{path}:2: unknown key door.widht; did you mean width?",
        f"{path}:3: door.width: must be at most 9, got 40",
        f"{path}:4: door.front_bind: expected \"host:port\", got 'nowhere'",
        f"{path}:6: unknown table [loc]; did you mean lock?",
        f"{path}:10: lock.is_open: expected true or false, got 0",
        "ENCKE_DOOR__WAIT_S: door.wait_s: expected a number, got 'soon'",
        "ENCKE_DOR__WIDTH: unknown table 'dor'; did you mean door?",
        "--kind: door.kind: must be one of oak, ash, got 'tin'",
    ]


def test_rules_between_values_name_the_place_of_the_value(tmp_path: Path) -> None:
    path = write(tmp_path, "[lock]\n\nis_open = false\n")
    assert faults_of(path) == [f"{path}:3: lock.is_open: needs a secret"]
    assert faults_of(None, {"ENCKE_LOCK__IS_OPEN": "0"}) == [
        "ENCKE_LOCK__IS_OPEN: lock.is_open: needs a secret"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[door\n", ":1: Expected ']' at the end of a table declaration"),
        ("\n[door]\nwidth = \n", ":3: Invalid value"),
        ("door = 5\n", ":1: door must be a table: [door]"),
        ("width = 5\n", ":1: unknown table [width]"),
        ("[door]\nwidth = " + "9" * 5000, ": not readable as TOML"),
        ("a = " + "[" * 100_000, ": not readable as TOML"),
    ],
)
def test_broken_file_is_refused_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    path = write(tmp_path, text)
    assert [f.startswith(f"{path}{fault}") for f in faults_of(path)] == [True]


def test_address_that_may_be_left_out_can_be_emptied_by_every_source(tmp_path: Path) -> None:
    path = write(tmp_path, '[door]\nback_bind = ""\n')
    assert load(House, path, {}).door.back_bind == ""
    assert load(House, None, {"ENCKE_DOOR__BACK_BIND": ""}).door.back_bind == ""
    flag = Override("--no-back", "door", "back_bind", "")
    assert load(House, None, {"ENCKE_DOOR__BACK_BIND": "127.0.0.1:1"}, [flag]).door.back_bind == ""
    assert "# The back door. Empty: off.\n" in example(House)


def test_missing_file_and_binary_file_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert faults_of(missing) == [f"cannot read {missing}: No such file or directory"]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert faults_of(binary) == [f"{binary}: not UTF-8 text"]


def test_secret_never_shows_in_faults_or_listing(tmp_path: Path) -> None:
    path = write(tmp_path, '[lock]\nsecrets = "hunter2"\n')
    assert "hunter2" not in "".join(faults_of(path))
    house = House(Door(width=4), Lock(secrets=("hunter2",)))
    assert list(changed(house)) == ["door.width = 4", 'lock.secrets = "***"']


def test_example_documents_every_key_and_loads_as_the_defaults(tmp_path: Path) -> None:
    text = example(House)
    assert load(House, write(tmp_path, text), {}) == House(Door(), Lock())
    assert tomllib.loads(text)["door"].keys() == {"front_bind", "back_bind", "width", "kind", "wait_s"}
    assert "# How wide it is. (at least 1, at most 9)\nwidth = 3\n" in text
    assert "# What it is made of. One of: oak, ash.\n" in text
    assert text.startswith(
        "# A house.\n#\n# It has two paragraphs.\n\n\n# Where people come in. More.\n[door]\n"
    )
