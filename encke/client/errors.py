"""What can go wrong for users of the client.

::

    ClientError
    ├─ SubscribeError          the server will not have this subscription; reconnecting is no use
    │  ├─ TokenRefusedError    the token is bad or has expired: get a new one
    │  └─ KeyDeletedError      the operator deleted the key
    ├─ ServerError             the server said what the protocol does not allow, or is not Encke
    └─ PushError               the push was refused, or the server could not do it
       └─ PushTimeoutError     no answer in time: done or not; repeat it with the same id

Connections that end and can be opened again are no errors: the subscriber
does that by itself and reports it to `on_status`.
"""

from __future__ import annotations

from cluster.errors import (
    DeadlinePassedError,
    InDoubtError,
    NoNodeError,
    NotOwnerError,
    OutOfOrderError,
    OverloadedError,
    StorageError,
    UnavailableError,
)

RETRYABLE_CODES = frozenset(
    error.code
    for error in (
        DeadlinePassedError,
        InDoubtError,
        NoNodeError,
        NotOwnerError,
        OutOfOrderError,
        OverloadedError,
        StorageError,
        UnavailableError,
    )
)


class ClientError(Exception):
    """Base of all errors of the client."""


class SubscribeError(ClientError):
    """The server refused or ended the subscription for good."""

    def __init__(self, key: str, code: int, reason: str) -> None:
        super().__init__(f"subscription of {key!r} ended for good: {reason} ({code})")
        self.key = key
        # The close code of docs/subscriber-protocol.md.
        self.code = code
        self.reason = reason


class TokenRefusedError(SubscribeError):
    """The token is missing, bad or has expired."""


class KeyDeletedError(SubscribeError):
    """The operator deleted the key."""


class ServerError(ClientError):
    """The server's answer is not what the protocol says."""


class PushError(ClientError):
    """A push failed."""

    def __init__(self, code: str, message: str, push_id: str = "", status: int = 0) -> None:
        super().__init__(f"{message} ({code})" if message else code)
        # The word of the server's error body ("bad_request", "id_conflict", ...).
        self.code = code
        self.message = message
        # Repeat the push with this id to be sure that it is stored once.
        self.push_id = push_id
        # HTTP status; 0 when there was no answer.
        self.status = status

    @property
    def is_retryable(self) -> bool:
        """Whether the same push may succeed later; the publisher has tried until its time was up."""
        return self.code in RETRYABLE_CODES


class PushTimeoutError(PushError):
    """No answer in time, so nobody knows whether the push was done."""

    def __init__(self, message: str, push_id: str = "") -> None:
        super().__init__("timeout", message, push_id)

    @property
    def is_retryable(self) -> bool:
        """Always, with the same id. Without one it may be done twice."""
        return True


class Ended(Exception):  # noqa: N818 -- internal, and not always an error
    """Inside the client: a connection ended, or could not be made; 1006 = nobody said why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason
