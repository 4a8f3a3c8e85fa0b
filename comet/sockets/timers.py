"""One coarse timer for every open socket: handshakes, live connections, farewells.

A call_later() per connection would cost 0.5 KB each, 1.5 KB after heartbeats
(bench/connections.py). Here an item is one entry of a set, and a heartbeat
moves nothing: the item is looked at when its old deadline comes, and tells the
new one.

Because everything that is open has a deadline, the wheel also knows all that
is open: len() and items().
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# Deadlines are met up to one tick (0.25 s) late, never early.
TICKS_PER_S = 4
# Later deadlines are looked at every SLOTS ticks (64 s). Slot numbers stay
# below 257, which CPython keeps as shared objects: a slot costs an item nothing.
SLOTS = 256
# Items looked at in one turn of the loop: 10,000 that are due together must
# not hold up everything else.
SLICE = 500
# The loop has stood still when a tick comes so late: the process was stopped, or its machine.
STALL_TICKS = 2 * TICKS_PER_S
# Then there is so long to read the heartbeats that have come meanwhile, before anybody is called
# silent: one turn of the loop reads 128 sockets, and the timers would come before the rest.
BREATH_S = 1.0


class Timed(Protocol):
    """What the wheel keeps."""

    # The wheel's own: where the item stands, -1 = nowhere. Starts as -1.
    slot: int

    def next_deadline(self, now: float) -> float | None:
        """Do what is due; the loop time to look again, None = never. May be called before its time."""
        ...

    def abort(self) -> None:
        """End the socket behind it at once."""
        ...


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that the wheel uses."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None], /) -> Cancellable: ...
    def call_soon(self, callback: Callable[[], None], /) -> object: ...


class TimerWheel:
    """Calls next_deadline() of its items when their time has come."""

    def __init__(self, loop: Clock) -> None:
        """Make an empty wheel that stands still."""
        # Loop time now, in seconds; bound once because every heartbeat asks.
        self.now = loop.time
        self._loop = loop
        self._slots: list[set[Timed]] = [set() for _ in range(SLOTS)]
        # Items taken out of their slots whose turn has come; usually empty.
        self._due: set[Timed] = set()
        # The last tick that was taken.
        self._tick = int(loop.time() * TICKS_PER_S)
        self._timer: Cancellable | None = None
        self._is_working = False
        # The loop takes its breath after a stall.
        self._is_pausing = False

    def __len__(self) -> int:
        return len(self.items())

    def items(self) -> list[Timed]:
        """Everything the wheel keeps at this moment."""
        return [item for slot in (*self._slots, self._due) for item in slot]

    def abort(self) -> None:
        """End everything that the wheel keeps at once."""
        for item in self.items():
            item.abort()

    def start(self) -> None:
        """Begin to turn."""
        if self._timer is None:
            self._schedule()

    def stop(self) -> None:
        """Stand still; what is due stays undone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, item: Timed, deadline: float) -> None:
        """Look at an item at a loop time; it must not be in the wheel."""
        tick = int(deadline * TICKS_PER_S) + 1
        now = self._tick
        if tick <= now:
            tick = now + 1
        elif tick >= now + SLOTS:
            tick = now + SLOTS - 1
        slot = item.slot = tick % SLOTS
        self._slots[slot].add(item)

    def move(self, item: Timed, deadline: float) -> None:
        """Look at an item at another time than before; it may be new."""
        self.remove(item)
        self.add(item, deadline)

    def remove(self, item: Timed) -> None:
        """Forget an item; does nothing when it is not there."""
        slot = item.slot
        if slot < 0:
            return
        item.slot = -1
        self._slots[slot].discard(item)
        self._due.discard(item)

    def _schedule(self) -> None:
        self._timer = self._loop.call_at((self._tick + 1) / TICKS_PER_S, self._turn)

    def _turn(self) -> None:
        """Take the slots of the ticks that have passed and begin to work through them."""
        now = self._loop.time()
        target = int(now * TICKS_PER_S)
        if target - self._tick > STALL_TICKS and not self._is_pausing:
            self._is_pausing = True
            self._timer = self._loop.call_at(now + BREATH_S, self._turn)
            return
        self._is_pausing = False
        # After a stall of more than one turn every slot is taken once.
        for tick in range(max(self._tick, target - SLOTS) + 1, target + 1):
            slot = tick % SLOTS
            if self._slots[slot]:
                self._due |= self._slots[slot]
                # A new set: an emptied one keeps the memory of its largest time.
                self._slots[slot] = set()
        self._tick = max(self._tick, target)
        # First, so that an item that raises does not stop the wheel.
        self._schedule()
        if self._due and not self._is_working:
            self._work()

    def _work(self) -> None:
        """Look at a slice of what is due, the rest in the next turn of the loop."""
        now = self._loop.time()
        due = self._due
        self._is_working = False
        for _ in range(min(SLICE, len(due))):
            # Looking at one item may have removed others.
            if not due:
                return
            item = due.pop()
            item.slot = -1
            try:
                deadline = item.next_deadline(now)
            except Exception:
                # A bug: without a deadline it could stay for ever.
                item.abort()
                raise
            # It may have put itself back meanwhile (Connection.close() lingers);
            # what it returns has the last word.
            self.remove(item)
            if deadline is not None:
                self.add(item, deadline)
        if due and self._timer is not None:
            self._is_working = True
            self._loop.call_soon(self._work)
