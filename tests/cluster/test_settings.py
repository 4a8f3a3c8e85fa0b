"""cluster/settings.py."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from cluster.settings import Setting, settings_of, to_toml


@dataclass(frozen=True)
class Section:
    flag: bool = False
    count: int = field(default=3, metadata={"doc": "How many.", "min": 1, "max": 9})
    wait_s: float = field(default=1.5, metadata={"min": 0.5})
    name: str = "x"
    level: str = field(default="low", metadata={"choices": ("low", "high")})
    mode: Literal["fsync", "os"] = "fsync"
    origins: tuple[str, ...] = ()
    ports: tuple[int, ...] = field(default_factory=lambda: (1,))
    token: str = field(default="", metadata={"secret": True})
    web_bind: str = "127.0.0.1:80"
    side_bind: str = field(default="127.0.0.1:81", metadata={"may_be_off": True})
    web_advertise: str = ""


def setting(key: str) -> Setting:
    return {one.key: one for one in settings_of("t", Section)}[key]


def test_settings_carry_what_the_field_says() -> None:
    count = setting("count")
    assert (count.table, count.default, count.doc) == ("t", 3, "How many.")
    assert (count.minimum, count.maximum) == (1, 9)
    assert setting("mode").choices == ("fsync", "os")
    assert setting("ports").default == (1,)


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [
        ("flag", True, True),
        ("count", 9, 9),
        ("wait_s", 2, 2.0),
        ("wait_s", 0.5, 0.5),
        ("name", "", ""),
        ("level", "high", "high"),
        ("mode", "os", "os"),
        ("origins", ["a", "b"], ("a", "b")),
        ("ports", [], ()),
        ("web_bind", "[::1]:0", "[::1]:0"),
        ("side_bind", "[::1]:0", "[::1]:0"),
        ("side_bind", "", ""),
        ("web_advertise", "", ""),
    ],
)
def test_good_value_is_taken_in_its_type(key: str, value: Any, typed: Any) -> None:
    taken = setting(key).check(value)
    assert taken == typed
    assert type(taken) is type(typed)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("flag", 1, "expected true or false, got 1"),
        ("count", True, "expected a whole number, got True"),
        ("count", 1.0, "expected a whole number, got 1.0"),
        ("count", 0, "must be at least 1, got 0"),
        ("count", 10, "must be at most 9, got 10"),
        ("wait_s", "1", "expected a number, got '1'"),
        ("wait_s", float("nan"), "must be a finite number"),
        ("wait_s", float("inf"), "must be a finite number"),
        ("name", 5, "expected text in quotes, got 5"),
        ("name", "a\nb", "must be one line of text"),
        ("name", ["x" * 200], "expected text in quotes, got ['" + "x" * 58 + "..."),
        ("level", "mid", "must be one of low, high, got 'mid'"),
        ("mode", "ram", "must be one of fsync, os, got 'ram'"),
        ("origins", "a", "expected a list of texts, got 'a'"),
        ("origins", ["a", 1], "expected a list of texts, got ['a', 1]"),
        ("ports", [True], "expected a list of whole numbers, got [True]"),
        ("web_bind", "80", "expected \"host:port\", got '80'"),
        ("web_bind", "", "expected \"host:port\", got ''"),
        ("side_bind", " ", "expected \"host:port\", got ' '"),
        ("web_advertise", "host", "expected \"host:port\", got 'host'"),
        ("web_advertise", ":80", "needs a host and a port to connect to, got ':80'"),
        (
            "web_advertise",
            "0.0.0.0:80",
            "needs a host and a port to connect to, got '0.0.0.0:80'",
        ),
        ("web_advertise", "[::]:80", "needs a host and a port to connect to, got '[::]:80'"),
        ("web_advertise", "a:0", "needs a host and a port to connect to, got 'a:0'"),
    ],
)
def test_bad_value_is_refused_in_words(key: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        setting(key).check(value)
    assert str(caught.value) == text


def test_bad_secret_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError) as caught:
        setting("token").check(["hunter2"])
    assert str(caught.value) == "expected text in quotes"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("flag", "True", True),
        ("flag", "0", False),
        ("count", "7", 7),
        ("wait_s", "2", 2.0),
        ("wait_s", "2.5", 2.5),
        ("name", "7", "7"),
        ("origins", "a, b,", ("a", "b")),
        ("origins", "", ()),
        ("ports", "1,2", (1, 2)),
    ],
)
def test_text_of_the_environment_is_read_by_type(key: str, text: str, value: Any) -> None:
    assert setting(key).parse(text) == value


@pytest.mark.parametrize(
    ("key", "text"), [("flag", "yes"), ("count", "x"), ("count", "1.5"), ("wait_s", ""), ("ports", "1,b")]
)
def test_text_that_is_not_of_the_type_is_refused(key: str, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        setting(key).parse(text)


def test_a_setting_needs_a_default_and_a_known_type() -> None:
    @dataclass
    class NoDefault:
        a: int

    @dataclass
    class Odd:
        a: complex = 0j

    with pytest.raises(TypeError, match=r"t\.a: every setting needs a default"):
        list(settings_of("t", NoDefault))
    with pytest.raises(TypeError, match="cannot be of type"):
        list(settings_of("t", Odd))


def test_secret_is_shown_as_stars() -> None:
    assert setting("token").show("hunter2") == '"***"'
    assert setting("token").show("") == '""'
    assert setting("name").show("x") == '"x"'


@pytest.mark.parametrize(
    "value", [True, False, 5, 1_048_576, 0.25, "", 'a "b" \\ c', ("a", "b"), (1, 2), (), -100_000]
)
def test_toml_reads_back_what_was_written(value: Any) -> None:
    read = tomllib.loads(f"a = {to_toml(value)}")["a"]
    assert (tuple(read) if isinstance(read, list) else read) == value
