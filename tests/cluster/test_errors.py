"""The error tree: one word per class, and the table of the module's docstring."""

from __future__ import annotations

import re

import pytest

from cluster import errors
from cluster.errors import ConfigError, EnckeError, RequestError

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, EnckeError)
]


def test_every_class_has_a_word_of_its_own() -> None:
    codes = [each.code for each in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z_]+", code) for code in codes)


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn: list[tuple[str, str | None]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"[ │├└─]*([A-Z]\w+Error)\b(?:\s+(\d+))?", line):
            drawn.append((match.group(1), match.group(2)))
    assert {name for name, _ in drawn} == {each.__name__ for each in CLASSES}
    for name, ret in drawn:
        assert ret is None or getattr(errors, name).ret == int(ret), name


@pytest.mark.parametrize("each", CLASSES)
def test_the_callers_own_mistakes_are_never_worth_a_retry(each: type[EnckeError]) -> None:
    assert each.ret in (1001, 65534, 65535)
    assert (each.ret == 65534) == issubclass(each, RequestError)
    if each.ret == 1001:
        assert each.is_retryable
    if issubclass(each, RequestError):
        assert not each.is_retryable


def test_a_configuration_error_carries_every_fault() -> None:
    error = ConfigError(["web.port: not a number", "comet.weight: below 0"])
    assert error.faults == ("web.port: not a number", "comet.weight: below 0")
    assert str(error) == "web.port: not a number\ncomet.weight: below 0"
