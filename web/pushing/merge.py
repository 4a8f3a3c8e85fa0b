"""The answers of several nodes and tries as one: what is done, what failed, what may be tried again."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.contracts.comet import Failure, PushReply
from cluster.errors import (
    ConflictError,
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    NotOwnerError,
    OutOfOrderError,
    UnavailableError,
)
from cluster.model import Key, Mid

# Surely not done, and another try may find it otherwise. Not OverloadedError: another
# try would add to what is too much already.
NOT_DONE = frozenset(
    {NotOwnerError.code, UnavailableError.code, DeadlinePassedError.code, OutOfOrderError.code}
)


def may_try_again(code: str, *, is_idempotent: bool) -> bool:
    """Whether a push that failed with this code may be sent again.

    Args:
        is_idempotent: its id is kept by the store, so that what was done is not done twice.
    """
    return code in NOT_DONE or (is_idempotent and code == InDoubtError.code)


class Merge:
    """Results by index of the push's keys."""

    def __init__(self, keys: Sequence[Key], *, is_idempotent: bool) -> None:
        """Nothing is answered yet; `is_idempotent` as in may_try_again()."""
        self._is_idempotent = is_idempotent
        self._index = {key: i for i, key in enumerate(keys)}
        self._mids = [Mid(0)] * len(keys)
        self._online = [0] * len(keys)
        self._failed: list[Failure] = []
        self._repeated: list[int] = []
        # Keys that may be tried again, and the code of what came of the last try.
        self._again: dict[Key, str] = {}
        # Keys of which an answer was lost. What refuses a later try says nothing of the one
        # that was lost: they stay in doubt until they are done.
        self._doubted: set[Key] = set()
        # Reason of the last node that refused its whole part.
        self._error: EnckeError | None = None
        self._is_any_answered = False

    def add(self, keys: list[Key], reply: PushReply) -> None:
        """Take one node's answer."""
        self._is_any_answered = True
        for i, key in enumerate(keys):
            self._mids[self._index[key]] = reply.mids[i]
            self._online[self._index[key]] = reply.online[i]
        for failure in reply.failed:
            self._refuse(keys[failure.index], failure.code)
        # What is known from our own earlier try is no repeat of the caller's.
        self._repeated += [self._index[keys[i]] for i in reply.repeated if keys[i] not in self._doubted]

    def fail(self, keys: list[Key], error: EnckeError) -> None:
        """Note that a node took none of its keys."""
        self._error = error
        for key in keys:
            self._refuse(key, error.code)

    def take_again(self) -> dict[Key, str]:
        """The keys that are to be tried again, with the code of the reason; they are open again."""
        again, self._again = self._again, {}
        return again

    def give_up(self, again: dict[Key, str]) -> None:
        """Note that these are not tried again."""
        self._failed += [self._failure(key, code) for key, code in again.items()]

    def reply(self) -> PushReply:
        """The whole answer.

        Raises:
            EnckeError: no node took any part.
        """
        if self._error is not None and not self._is_any_answered:
            if self._doubted and not isinstance(self._error, InDoubtError):
                raise InDoubtError("an answer was lost") from self._error
            raise self._error
        self._failed.sort(key=lambda failure: failure.index)
        return PushReply(self._mids, self._online, self._failed, self._repeated)

    def _refuse(self, key: Key, code: str) -> None:
        if code == InDoubtError.code:
            self._doubted.add(key)
        if may_try_again(code, is_idempotent=self._is_idempotent):
            self._again[key] = code
        else:
            self._failed.append(self._failure(key, code))

    def _failure(self, key: Key, code: str) -> Failure:
        is_doubted = key in self._doubted and code != ConflictError.code
        return Failure(self._index[key], InDoubtError.code if is_doubted else code)
