"""What is pushed and what becomes of it: values and their JSON, without I/O (docs/http-api.md)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from cluster.errors import InDoubtError
from cluster.model import Mid, key_fault
from encke.client.errors import RETRYABLE_CODES, PushError, PushTimeoutError, ServerError

# Answers that say "not now" whatever their body.
_RETRYABLE_STATUS = frozenset({429, 502, 503, 504})
# Those of a proxy that has passed the request on, perhaps.
_DOUBTFUL_STATUS = frozenset({502, 504})


class Push(msgspec.Struct, frozen=True):
    """One value for one key or several."""

    keys: str | Sequence[str]
    # Anything msgspec can encode as JSON; msgspec.Raw(b"...") stands for itself.
    value: object
    # Seconds in the store; 0 = online connections only.
    expire_s: int = 0
    # The same id for the same key is stored once, however often it is pushed; "" = the publisher
    # makes one up for its own retries where the message is stored. With expire_s 0 it does not: a
    # server would have to write each id down. Such a push is sent again only if it was surely not done.
    id: str = ""

    def own_id(self) -> str:
        """The id to push it with; empty = none."""
        return self.id or (uuid.uuid4().hex if self.expire_s > 0 else "")

    def encode(self, push_id: str, keys: Sequence[str] | None = None) -> bytes:
        """The body of the request, or the line of the stream.

        Args:
            push_id: see own_id().
            keys: only these, when a retry is about some of them.

        Raises:
            ValueError: a key that no server accepts.
            TypeError: the value is no JSON.
        """
        body: dict[str, object] = {"msg": self.value, "expire": self.expire_s}
        if push_id:
            body["id"] = push_id
        if isinstance(self.keys, str):
            body["key"] = self.keys
        else:
            body["keys"] = distinct(self.keys) if keys is None else keys
        for key in [self.keys] if isinstance(self.keys, str) else self.keys:
            fault = key_fault(key)
            if fault is not None:
                raise ValueError(f"{key[:80]!r}: {fault}")
        return msgspec.json.encode(body)

    def encode_line(self, push_id: str) -> bytes:
        """As encode(), in one line with its end."""
        line = self.encode(push_id)
        # Only msgspec.Raw can bring line breaks along.
        return (msgspec.json.format(line, indent=-1) if b"\n" in line else line) + b"\n"


class PushResult(msgspec.Struct, frozen=True):
    """One key that was pushed to."""

    key: str
    mid: Mid
    # Connections that took the message; with 0 and expire_s 0 nobody has it.
    online: int = 0
    # This id had been pushed before; `mid` is the first one's, nothing was done again.
    repeated: bool = False


class PushFailure(msgspec.Struct, frozen=True):
    """One key that was not pushed to."""

    key: str
    code: str

    @property
    def is_retryable(self) -> bool:
        """Whether the same push with the same id may succeed later."""
        return self.code in RETRYABLE_CODES


class PushReply(msgspec.Struct, frozen=True):
    """What became of one push."""

    # Empty when it was pushed without one.
    push_id: str
    results: list[PushResult]
    # Empty when every key succeeded.
    failed: list[PushFailure]
    # The whole push was refused; only streams report it here, elsewhere it is raised.
    error: PushError | None = None


class Progress:
    """What is known of one push after some attempts."""

    def __init__(self, push_id: str, keys: Sequence[str]) -> None:
        self._push_id = push_id
        self._keys = tuple(keys)
        # Keys to try (again).
        self.pending = list(keys)
        self._results: dict[str, PushResult] = {}
        self._failed: dict[str, PushFailure] = {}
        # Why the last attempt failed as a whole.
        self._error: PushError | None = None

    def take(self, reply: PushReply) -> None:
        """Add the answer to an attempt for the pending keys."""
        self._error = reply.error
        if reply.error is not None:
            return
        self._results |= {result.key: result for result in reply.results}
        self._failed |= {failure.key: failure for failure in reply.failed}
        self.pending = [
            failure.key
            for failure in reply.failed
            if failure.is_retryable and (self._push_id or failure.code != InDoubtError.code)
        ]

    @property
    def is_over(self) -> bool:
        """Whether another attempt would change nothing."""
        if self._error is not None:
            return not (is_worth_retrying(self._error) and (self._push_id or not is_doubtful(self._error)))
        return not self.pending

    def fault(self) -> PushError:
        """Why another attempt is needed."""
        if self._error is not None:
            return self._error
        failure = self._failed[self.pending[0]]
        return PushError(failure.code, f"push to {failure.key!r} failed", self._push_id, 200)

    def reply(self) -> PushReply:
        """The sum of all attempts, in the order of the keys.

        Raises:
            PushError: nothing succeeded, and the last attempt failed as a whole.
        """
        if self._error is not None:
            if not self._results:
                raise self._error
            self._failed |= {key: PushFailure(key, self._error.code) for key in self.pending}
        for key in self._results:
            self._failed.pop(key, None)
        results = [self._results[key] for key in self._keys if key in self._results]
        failed = [self._failed[key] for key in self._keys if key in self._failed]
        return PushReply(self._push_id, results, failed)


class _Error(msgspec.Struct):
    code: str
    message: str = ""


class _Answer(msgspec.Struct):
    results: list[PushResult] = []
    failed: list[PushFailure] = []
    error: _Error | None = None


def distinct(keys: Sequence[str]) -> list[str]:
    """Each key once, in the order of its first appearance."""
    return list(dict.fromkeys(keys))


def parse_answer(body: bytes, push_id: str, status: int = 200) -> PushReply:
    """Read an answer, or one line of a stream's.

    Raises:
        ServerError: it is not the protocol's.
    """
    if status == 404:
        raise ServerError("the server does not know pushes (HTTP 404): is it the admin address of Encke?")
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if status in _RETRYABLE_STATUS:
            # A proxy on the way, in its own words.
            return PushReply(push_id, [], [], PushError("unavailable", f"HTTP {status}", push_id, status))
        raise ServerError(
            f"the server gave an answer that cannot be read (HTTP {status}): {error}"
        ) from error
    if answer.error is not None:
        refusal = PushError(answer.error.code, answer.error.message, push_id, status)
        return PushReply(push_id, [], [], refusal)
    if status != 200 or not (answer.results or answer.failed):
        raise ServerError(f"the server answered HTTP {status} without a result")
    return PushReply(push_id, answer.results, answer.failed)


def is_worth_retrying(error: PushError) -> bool:
    """Whether the same request may succeed a moment later."""
    return error.is_retryable or error.status in _RETRYABLE_STATUS


def is_doubtful(error: PushError) -> bool:
    """Whether the push may have been done all the same; without an id it is not sent again then."""
    is_lost = isinstance(error, PushTimeoutError) or error.code == InDoubtError.code
    return is_lost or error.status in _DOUBTFUL_STATUS
