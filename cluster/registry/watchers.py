"""Whom a registry, and who follows one, tells of what is new."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Watchers(Generic[T]):
    """Those who want to hear, in the order in which they came."""

    def __init__(self) -> None:
        # Each under an object of its own: one function may watch twice.
        self._calls: dict[object, Callable[[T], None]] = {}

    def add(self, call: Callable[[T], None]) -> Callable[[], None]:
        """Tell one more from now on.

        Returns:
            A function that ends it; may be called more than once.
        """
        watcher = object()
        self._calls[watcher] = call

        def end() -> None:
            self._calls.pop(watcher, None)

        return end

    def tell(self, news: T) -> None:
        """Tell all that are there now; one that ends its watch meanwhile may hear of it still."""
        for call in list(self._calls.values()):
            try:
                call(news)
            except Exception:
                # One watcher's fault must not keep the news from the others.
                log.exception("a watcher of the registry failed")
