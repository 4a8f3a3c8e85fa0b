"""One setting: its type, range and words, taken from a dataclass field; checks and parses its value.

A field of a configuration dataclass looks like this::

    name: type = field(default=..., metadata={
        "doc": "one sentence: what it does, or what the limit protects",
        "min": 1, "max": 100,        # inclusive, for numbers
        "choices": ("a", "b"),       # for texts
        "secret": True,              # never shown, not even in a fault
        "may_be_off": True,          # for an address to listen on: it may be empty
    })

Types: bool, int, float, str, tuple[str, ...], tuple[int, ...] and Literal of
texts. A key that ends in ``_bind`` is an address to listen on ("host:port",
port 0 = any; empty = the listener is switched off); one that ends in
``_advertise`` may be empty.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Literal

from cluster.addresses import is_unspecified, split_address

# A value in a fault is cut to this: a paste of a whole file stays readable.
SHOWN_CHARS = 60

# What a TOML value may be; checked before anything relies on it.
Value = Any

_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    tuple[str, ...]: "a list of texts",
    tuple[int, ...]: "a list of whole numbers",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What the loader knows of one key."""

    table: str
    key: str
    # One of the keys of _EXPECTED.
    type: Any
    default: Value
    doc: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    is_secret: bool
    # An address to listen on that may be empty: whoever has it does without the listener then.
    may_be_off: bool

    def check(self, value: Value) -> Value:
        """Turn a TOML value into the field's value.

        Raises:
            ValueError: the text says what is wrong with it, without the value if it is secret.
        """
        typed = self._typed(value)
        for item in typed if isinstance(typed, tuple) else (typed,):
            self._check_one(item)
        return typed

    def parse(self, text: str) -> Value:
        """Read a value from the environment or a flag; lists are separated by commas.

        Raises:
            ValueError: as check().
        """
        if self.type in (tuple[str, ...], tuple[int, ...]):
            parts = [part.strip() for part in text.split(",") if part.strip()]
            return self.check([_number(p) for p in parts] if self.type == tuple[int, ...] else parts)
        if self.type is bool:
            return self.check({"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text))
        if self.type in (int, float):
            return self.check(_number(text))
        return self.check(text)

    def show(self, value: Value) -> str:
        """The value as TOML writes it; stars for a secret that is set."""
        if self.is_secret and value:
            return '"***"'
        return to_toml(value)

    def _typed(self, value: Value) -> Value:
        kind = self.type
        if kind in (tuple[str, ...], tuple[int, ...]):
            item = str if kind == tuple[str, ...] else int
            if isinstance(value, list | tuple) and all(type(v) is item for v in value):
                return tuple(value)
        elif kind is float and type(value) is int:
            return float(value)
        elif type(value) is kind:
            return value
        raise ValueError(f"expected {_EXPECTED[kind]}{self._got(value)}")

    def _check_one(self, value: Value) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be a finite number")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise ValueError(f"must be at least {self.minimum}{self._got(value)}")
            if self.maximum is not None and value > self.maximum:
                raise ValueError(f"must be at most {self.maximum}{self._got(value)}")
        if not isinstance(value, str):
            return
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}{self._got(value)}")
        if "\n" in value or "\0" in value:
            raise ValueError("must be one line of text")
        if self.key.endswith("_bind") and (value or not self.may_be_off):
            split_address(value)
        elif self.key.endswith("_advertise") and value:
            host, port = split_address(value)
            if not host or not port or is_unspecified(host):
                raise ValueError(f"needs a host and a port to connect to{self._got(value)}")

    def _got(self, value: Value) -> str:
        if self.is_secret:
            return ""
        text = repr(value)
        return f", got {text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + '...'}"


def settings_of(table: str, section: type) -> Iterator[Setting]:
    """The settings of a configuration dataclass, in the order of its fields."""
    hints = typing.get_type_hints(section)
    for one in fields(section):
        yield _setting(table, one, hints[one.name])


def to_toml(value: Value) -> str:
    """Write a value as TOML does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    return f"{value:_}" if isinstance(value, int) and value >= 100_000 else str(value)


def _setting(table: str, one: Field[Any], kind: Any) -> Setting:
    choices = tuple(one.metadata.get("choices", ()))
    if typing.get_origin(kind) is Literal:
        choices, kind = typing.get_args(kind), str
    if kind not in _EXPECTED:
        raise TypeError(f"{table}.{one.name}: a setting cannot be of type {kind}")
    if one.default is not MISSING:
        default = one.default
    elif one.default_factory is not MISSING:
        default = one.default_factory()
    else:
        raise TypeError(f"{table}.{one.name}: every setting needs a default")
    meta = one.metadata
    return Setting(
        table=table,
        key=one.name,
        type=kind,
        default=default,
        doc=meta.get("doc", ""),
        minimum=meta.get("min"),
        maximum=meta.get("max"),
        choices=choices,
        is_secret=bool(meta.get("secret", False)),
        may_be_off=bool(meta.get("may_be_off", False)),
    )


def _number(text: str) -> Value:
    """A number where the text is one, else the text: check() then says what was expected."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
