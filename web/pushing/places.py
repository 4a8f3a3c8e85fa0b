"""Places for pushes that take long, of which there are only so many.

A push that is not done after HELD_AFTER_S is held: its node does not answer, or waits
for a store that does not. Only so many are held, and one more is given up: what is
pushed to a failed node or store server must not fill the listener, which has others to
serve. Age tells them apart, because a web node does not know which store server has a
key. Who comes last is given up, not who has waited longest: where all is slow, none
would be waited for until it is done.
"""

from __future__ import annotations

import logging

from cluster.episode import Episode

log = logging.getLogger(__name__)

# Far above the time of a push whose node and store are there, and above the first pauses of one whose
# key moves: while all places are taken these go on.
HELD_AFTER_S = 1.0
# More for each key: a push to very many takes long where nothing has failed.
HELD_AFTER_KEY_S = 0.0001


def held_at(sent_at: float, keys: int) -> float:
    """From when on a push needs a place, unless it is done; in the clock of `sent_at`."""
    return sent_at + HELD_AFTER_S + keys * HELD_AFTER_KEY_S


class Places:
    """So many, and who has none is given up."""

    def __init__(self, most: int | None) -> None:
        """All are free; None = there is no end of them."""
        self._most = most
        self.taken = 0
        # Somebody found none.
        self._full = Episode(ends_at=(most or 0) // 2)

    def take(self) -> bool:
        """Take one; False = there is none. give_back() follows."""
        if self._most is not None and self.taken >= self._most:
            if self._full.starts():
                log.warning("full: %d pushes wait for nodes or stores, more are given up", self.taken)
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """It is free again."""
        self.taken -= 1
        if self._full.ends(self.taken):
            log.info("no longer full: %d pushes wait for nodes or stores", self.taken)
