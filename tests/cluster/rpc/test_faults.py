"""Errors across the wire."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from cluster import errors
from cluster.errors import (
    ConfigError,
    DeadlinePassedError,
    EnckeError,
    RequestError,
    StorageError,
    UnavailableError,
)
from cluster.rpc.faults import MAX_TEXT, Fault, to_error, to_fault

ALL = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, EnckeError)]


def carried(error: EnckeError) -> EnckeError:
    return to_error(msgspec.msgpack.decode(msgspec.msgpack.encode(to_fault(error)), type=Fault))


@pytest.mark.parametrize("kind", [e for e in ALL if e is not ConfigError], ids=lambda e: e.code)
def test_every_error_arrives_as_it_left(kind: type[EnckeError]) -> None:
    error = carried(kind("why"))

    assert type(error) is kind
    assert str(error) == "why"
    assert error.is_retryable is kind.is_retryable


def test_errors_of_one_node_arrive_as_the_base() -> None:
    assert type(carried(ConfigError(["a", "b"]))) is EnckeError


@pytest.mark.parametrize(
    ("base", "is_retryable"), [(StorageError, False), (UnavailableError, True), (EnckeError, True)]
)
def test_unknown_error_is_taken_for_the_nearest_known_base(
    base: type[EnckeError], is_retryable: bool
) -> None:
    class NewerError(base):  # type: ignore[misc, valid-type]
        code = "from_the_future"

    NewerError.is_retryable = is_retryable

    error = carried(NewerError("why"))

    assert type(error) is base
    assert error.is_retryable is is_retryable
    assert type(error)("").is_retryable is base.is_retryable


def test_error_without_a_known_code_is_the_base() -> None:
    error = to_error(Fault(["x", "y"], "why", False))

    assert type(error) is EnckeError
    assert not error.is_retryable


def test_codes_lead_from_the_class_to_its_bases() -> None:
    assert to_fault(DeadlinePassedError("late")).codes == ["deadline_passed", "unavailable", "internal"]


def test_long_texts_are_cut() -> None:
    assert len(to_fault(RequestError("x" * 10_000)).text) == MAX_TEXT
