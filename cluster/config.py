"""One TOML file, the environment and the command's flags → frozen dataclasses.

The root is a dataclass with one field per table of the file; each field's
type is the dataclass of that table (cluster/settings.py tells how its fields
look). Later sources win: file, environment (``ENCKE_COMET__WS_BIND=...``),
flags. Nothing is guessed: an unknown name is refused, and all faults are
reported at once, each with its place.

A dataclass may say what is wrong between its values with a method
``faults(self) -> Iterable[tuple[str, str]]`` of (key, text).
"""

from __future__ import annotations

import difflib
import re
import textwrap
import tomllib
import typing
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from cluster.errors import ConfigError
from cluster.settings import Setting, Value, settings_of, to_toml

PREFIX = "ENCKE_"
EXAMPLE_WIDTH = 100

T = TypeVar("T")

_TABLE_LINE = re.compile(r"\s*\[\s*([\w\"'.-]+)\s*\]")
_KEY_LINE = re.compile(r"\s*([\w\"'-]+)\s*=")
_SYNTAX_PLACE = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Override:
    """A setting given on the command line."""

    # As the operator wrote it: "--ws-bind".
    flag: str
    table: str
    key: str
    text: str


@runtime_checkable
class SelfChecking(Protocol):
    """A configuration dataclass with rules between its values."""

    def faults(self) -> Iterable[tuple[str, str]]:
        """(key, text) of everything that is wrong."""
        ...


def load(
    root: type[T],
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Iterable[Override] = (),
    *,
    unused: Container[str] = (),
) -> T:
    """Read the configuration.

    Args:
        root: dataclass with a field per table.
        path: the TOML file; None = defaults.
        environ: names that do not start with ENCKE_ or hold no "__" are somebody else's.
        unused: tables whose rules between values need not hold, because the caller does not use
            them: a file that several machines share may want a secret that only one of them has.

    Raises:
        ConfigError: with every fault of every source.
    """
    loader = _Loader(root)
    if path is not None:
        loader.read_file(path)
    loader.read_environment(environ)
    for override in overrides:
        loader.read_text(override.flag, override.table, override.key, override.text)
    sections = loader.build_sections(unused)
    if loader.faults:
        raise ConfigError(loader.faults)
    return root(**sections)


def changed(config: object) -> Iterator[str]:
    """Say which values differ from their defaults: ``comet.weight = 2``. Secrets are starred."""
    for table, section in _sections(type(config)).items():
        values = getattr(config, table)
        for setting in settings_of(table, section):
            value = getattr(values, setting.key)
            if value != setting.default:
                yield f"{table}.{setting.key} = {setting.show(value)}"


def example(root: type) -> str:
    """Write the file that documents every key with its default: the manual that is shipped."""
    lines = _comment(root.__doc__ or "")
    for table, section in _sections(root).items():
        lines += ["", "", *_comment((section.__doc__ or "").strip().splitlines()[0]), f"[{table}]"]
        for setting in settings_of(table, section):
            lines += ["", *_comment(_document(setting)), f"{setting.key} = {to_toml(setting.default)}"]
    return "\n".join(lines) + "\n"


class _Loader:
    """Values and faults gathered so far."""

    def __init__(self, root: type) -> None:
        self._classes = _sections(root)
        self._settings = {
            table: {setting.key: setting for setting in settings_of(table, section)}
            for table, section in self._classes.items()
        }
        self._values: dict[str, dict[str, Value]] = {table: {} for table in self._classes}
        # Where the value that counts came from, for faults between values.
        self._places: dict[tuple[str, str], str] = {}
        self.faults: list[str] = []

    def read_file(self, path: Path) -> None:
        try:
            text = path.read_bytes().decode()
            tables = tomllib.loads(text)
        except OSError as error:
            self.faults.append(f"cannot read {path}: {error.strerror}")
            return
        except UnicodeDecodeError:
            self.faults.append(f"{path}: not UTF-8 text")
            return
        except tomllib.TOMLDecodeError as error:
            found = _SYNTAX_PLACE.search(str(error))
            line = f":{found[1]}" if found else ""
            self.faults.append(f"{path}{line}: {_SYNTAX_PLACE.sub('', str(error))}")
            return
        except (ValueError, RecursionError) as error:
            # tomllib lets these through: a number of thousands of digits, lists nested very deep.
            self.faults.append(f"{path}: not readable as TOML: {error}")
            return
        lines = _line_numbers(text)
        for table, content in tables.items():
            place = _place(path, lines.get((table, "")) or lines.get(("", table)))
            if table not in self._settings:
                self.faults.append(f"{place}: unknown table [{table}]{_suggest(table, self._settings)}")
            elif not isinstance(content, dict):
                self.faults.append(f"{place}: {table} must be a table: [{table}]")
            else:
                for key, value in content.items():
                    self._take(_place(path, lines.get((table, key))), table, key, value, is_text=False)

    def read_environment(self, environ: Mapping[str, str]) -> None:
        for name, text in sorted(environ.items()):
            if not name.startswith(PREFIX) or "__" not in name:
                continue
            table, _, key = name.removeprefix(PREFIX).lower().partition("__")
            self.read_text(name, table, key, text)

    def read_text(self, place: str, table: str, key: str, text: str) -> None:
        if table not in self._settings:
            self.faults.append(f"{place}: unknown table {table!r}{_suggest(table, self._settings)}")
            return
        self._take(place, table, key, text, is_text=True)

    def build_sections(self, unused: Container[str]) -> dict[str, object]:
        """Make the dataclasses, and let them check themselves when nothing else is wrong with them."""
        sections: dict[str, object] = {}
        for table, section in self._classes.items():
            built = section(**self._values[table])
            sections[table] = built
            if table not in unused and isinstance(built, SelfChecking):
                for key, text in built.faults():
                    place = self._places.get((table, key), "by default")
                    self.faults.append(f"{place}: {table}.{key}: {text}")
        return sections

    def _take(self, place: str, table: str, key: str, value: Value, *, is_text: bool) -> None:
        setting = self._settings[table].get(key)
        if setting is None:
            suggestion = _suggest(key, self._settings[table])
            self.faults.append(f"{place}: unknown key {table}.{key}{suggestion}")
            return
        try:
            self._values[table][key] = setting.parse(value) if is_text else setting.check(value)
        except ValueError as error:
            self.faults.append(f"{place}: {table}.{key}: {error}")
            return
        self._places[table, key] = place


def _sections(root: type) -> dict[str, Any]:
    hints = typing.get_type_hints(root)
    return {one.name: hints[one.name] for one in fields(root)}


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    """Lines on which tables and keys first stand.

    tomllib does not tell them. A key inside a text of several lines can be
    taken for one; only the place in a fault would then be off.
    """
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE_LINE.match(line):
            table = match[1].strip("\"'")
            lines.setdefault((table, ""), number)
        elif match := _KEY_LINE.match(line):
            lines.setdefault((table, match[1].strip("\"'")), number)
    return lines


def _place(path: Path, line: int | None) -> str:
    return str(path) if line is None else f"{path}:{line}"


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _document(setting: Setting) -> str:
    text = setting.doc
    if setting.may_be_off:
        text += " Empty: off."
    if setting.choices:
        text += f" One of: {', '.join(setting.choices)}."
    limits = [f"at least {setting.minimum}"] if setting.minimum is not None else []
    limits += [f"at most {setting.maximum}"] if setting.maximum is not None else []
    return f"{text} ({', '.join(limits)})" if limits else text


def _comment(text: str) -> list[str]:
    paragraphs = text.strip().split("\n\n")
    lines: list[str] = []
    for paragraph in paragraphs:
        if lines:
            lines.append("#")
        wrapped = textwrap.wrap(" ".join(paragraph.split()), EXAMPLE_WIDTH - 2)
        lines += [f"# {line}" for line in wrapped]
    return lines
