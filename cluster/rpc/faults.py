"""Errors as they cross the wire: EnckeError ⇄ Fault.

A fault names its class and every base of it, so that a peer which does not
know the newest kind of error still takes it for the nearest one it knows.
"""

from __future__ import annotations

import msgspec

from cluster.errors import (
    ConflictError,
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    LocalProtocolError,
    NoNodeError,
    NotOwnerError,
    OutOfOrderError,
    OverloadedError,
    RemoteProtocolError,
    RequestError,
    StorageError,
    TooLargeError,
    UnavailableError,
)

# Longer texts are cut: an error must not become a large frame.
MAX_TEXT = 500

# ConfigError is missing on purpose: it is for the operator of one node.
_CLASSES: dict[str, type[EnckeError]] = {
    error.code: error
    for error in (
        EnckeError,
        RequestError,
        ConflictError,
        TooLargeError,
        NotOwnerError,
        NoNodeError,
        UnavailableError,
        OverloadedError,
        DeadlinePassedError,
        OutOfOrderError,
        InDoubtError,
        StorageError,
        RemoteProtocolError,
        LocalProtocolError,
    )
}


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """Why a call failed."""

    # Codes (cluster/errors.py) of the error's class, then of its bases.
    codes: list[str]
    # For people. Never holds a payload or a token.
    text: str
    is_retryable: bool


def to_fault(error: EnckeError) -> Fault:
    """Describe an error to the peer."""
    codes = [base.code for base in type(error).__mro__ if issubclass(base, EnckeError)]
    return Fault(list(dict.fromkeys(codes)), str(error)[:MAX_TEXT], error.is_retryable)


def to_error(fault: Fault) -> EnckeError:
    """The nearest error class that this node knows, with the peer's text and word on retrying."""
    known = next((_CLASSES[code] for code in fault.codes if code in _CLASSES), EnckeError)
    error = known(fault.text)
    if error.is_retryable != fault.is_retryable:
        error.is_retryable = fault.is_retryable
    return error
