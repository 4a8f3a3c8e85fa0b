"""Tells when there is too much of something and when that has ended, so that the log says each once."""

from __future__ import annotations


class Episode:
    """From the moment at which a limit is met until there is far less again.

    What comes and goes at the limit is one episode.
    """

    __slots__ = ("_ends_at", "_is_on")

    def __init__(self, ends_at: int) -> None:
        """There is not too much yet.

        Args:
            ends_at: with so many or fewer it has ended.
        """
        self._ends_at = ends_at
        self._is_on = False

    def starts(self) -> bool:
        """Note that the limit is met; whether it was not in this episode yet."""
        was_on, self._is_on = self._is_on, True
        return not was_on

    def ends(self, count: int) -> bool:
        """Note how many there are now; whether that ends an episode."""
        if self._is_on and count <= self._ends_at:
            self._is_on = False
            return True
        return False
