"""Errors that cross module borders.

::

    EnckeError
    ├─ RequestError          65534  the caller's request is wrong; never retry as it is
    │  ├─ ConflictError      65534  this push id was used for another payload
    │  └─ TooLargeError      65534  over a configured size limit
    ├─ NotOwnerError          1001  another node owns the key; refresh membership, try again
    ├─ NoNodeError            1001  nobody serves the key now; try again later
    ├─ UnavailableError      65535  draining, not reached, or no answer in time; try again later
    │  ├─ OverloadedError    65535  refused because too much is in progress: surely not done
    │  ├─ DeadlinePassedError 65535 refused because its deadline had passed: surely not done
    │  ├─ OutOfOrderError    65535  what it follows was not done: surely not done either
    │  └─ InDoubtError       65535  the answer was lost: done or not, nobody knows yet
    ├─ StorageError          65535  the store refused or failed: surely not done
    ├─ RemoteProtocolError   65535  a peer broke the protocol
    ├─ LocalProtocolError    65535  we broke it: a bug
    └─ ConfigError                  the operator must act

Each class has the wire code of the compatible API (``ret``), the word of the
version 2 API (``code``) and says whether the same request may succeed later
(``is_retryable``). web/codec/replies.py puts them on the wire for callers, rpc/faults.py between nodes.
"""

from __future__ import annotations

from collections.abc import Sequence


class EnckeError(Exception):
    """Base of all errors that callers are meant to handle."""

    ret: int = 65535
    code: str = "internal"
    is_retryable: bool = False


class RequestError(EnckeError):
    """The request is wrong; the text tells its sender what to change."""

    ret = 65534
    code = "bad_request"


class ConflictError(RequestError):
    """The same push id was used for the same key with another payload."""

    code = "id_conflict"


class TooLargeError(RequestError):
    """Over a size limit; the text names the limit."""

    code = "too_large"


class NotOwnerError(EnckeError):
    """This node does not own the key, under a membership at least as new as the caller's."""

    ret = 1001
    code = "not_owner"
    is_retryable = True


class NoNodeError(EnckeError):
    """No node serves this key at the moment."""

    ret = 1001
    code = "no_node"
    is_retryable = True


class UnavailableError(EnckeError):
    """Draining, not reached, or no answer in time; what was asked may or may not have been done."""

    code = "unavailable"
    is_retryable = True


class OverloadedError(UnavailableError):
    """Too much is in progress. Nothing was done; asking again at once would only add to it."""

    code = "overloaded"


class DeadlinePassedError(UnavailableError):
    """Refused because the deadline that it carried had passed. Nothing was done."""

    code = "deadline_passed"


class OutOfOrderError(UnavailableError):
    """Refused because the push that it follows was not done. Nothing was done."""

    code = "out_of_order"


class InDoubtError(UnavailableError):
    """The answer to a save was lost; only the store can tell whether it happened."""

    code = "in_doubt"

    def __init__(self, text: str = "", *, is_rolled_back: bool = False) -> None:
        """Say what happened.

        Args:
            is_rolled_back: by the store of this process, and only if the process dies before the next
                commit may it come back: asked again, it is stored once, also without an id.
        """
        super().__init__(text)
        self.is_rolled_back = is_rolled_back


class StorageError(EnckeError):
    """The store failed; nothing was stored."""

    code = "storage"
    is_retryable = True


class RemoteProtocolError(EnckeError):
    """A peer sent what the protocol does not allow."""

    code = "remote_protocol"


class LocalProtocolError(EnckeError):
    """Our own code asked for something the protocol does not allow."""

    code = "local_protocol"


class ConfigError(EnckeError):
    """The configuration is wrong. Carries every fault, each with its place."""

    code = "config"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)
