"""What can be called: a method's number on the wire, its types, what a lost answer means."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import msgspec

from cluster.errors import EnckeError, InDoubtError, UnavailableError

R = TypeVar("R")

# Called with the decoded arguments; a future is answered when it is done, a coroutine runs in a task.
Handler = Callable[..., "Coroutine[Any, Any, Any] | Any"]


class Method(Generic[R]):
    """One method of a contract. Both sides know it by its number, which is never given to another."""

    __slots__ = (
        "argument_types",
        "decode_arguments",
        "decode_result",
        "is_read",
        "name",
        "number",
        "result_type",
        "since",
    )

    def __init__(
        self,
        number: int,
        name: str,
        arguments: Any,
        result: type[R],
        *,
        is_read: bool = False,
        since: int = 1,
    ) -> None:
        """Describe a method.

        Args:
            number: 1 to 65535.
            arguments: a tuple type. Arguments may be added at its end only as
                trailing fields with defaults of a struct in it.
            is_read: nothing changes by calling it, so a lost answer leaves no doubt.
            since: protocol version of the first node that serves it.
        """
        self.number = number
        self.name = name
        self.argument_types = arguments
        self.result_type = result
        self.is_read = is_read
        self.since = since
        self.decode_arguments = cast(
            Callable[[bytes], tuple[Any, ...]], msgspec.msgpack.Decoder(arguments).decode
        )
        self.decode_result = cast(Callable[[bytes], R], msgspec.msgpack.Decoder(result).decode)

    def answer_lost(self, why: str) -> EnckeError:
        """The error for a call that may have been carried out, though nobody will hear of it."""
        text = f"{self.name}: {why}"
        return UnavailableError(text) if self.is_read else InDoubtError(text)


@dataclass(frozen=True, slots=True)
class Route:
    """A method and who carries it out."""

    method: Method[Any]
    handler: Handler

    # The handler is a coroutine function; else it returns a future.
    is_coroutine: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_coroutine", inspect.iscoroutinefunction(self.handler))


def by_number(routes: Iterable[Route]) -> dict[int, Route]:
    """Index routes.

    Raises:
        ValueError: two methods have the same number.
    """
    table: dict[int, Route] = {}
    for route in routes:
        other = table.setdefault(route.method.number, route)
        if other is not route:
            raise ValueError(f"{other.method.name} and {route.method.name} have the same number")
    return table
