"""The timer wheel with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

from comet.sockets.timers import SLICE, SLOTS, TICKS_PER_S, TimerWheel

TICK_S = 1 / TICKS_PER_S
HORIZON_S = SLOTS * TICK_S


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """Time that moves when the test says so."""

    def __init__(self, now: float = 1000.1) -> None:
        self.now = now
        self.timers: list[Timer] = []
        self.soon: list[Callable[[], None]] = []
        # Turns of the loop that had something to do.
        self.turns = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self.soon.append(callback)

    def run_turn(self) -> None:
        """Run what is due now, not what that asks for."""
        due = [t for t in self.timers if t.when <= self.now and not t.is_cancelled]
        self.timers = [t for t in self.timers if t.when > self.now and not t.is_cancelled]
        calls = self.soon + [timer.callback for timer in due]
        self.soon = []
        self.turns += bool(calls)
        for call in calls:
            call()

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + TICK_S / 4)
            self.run_turn()
            while self.soon:
                self.run_turn()


class Item:
    def __init__(self, log: list[Item], next_deadline: Callable[[float], float | None] | None = None) -> None:
        self.slot = -1
        self.looked_at: list[float] = []
        self._log = log
        self._next_deadline = next_deadline
        self.is_aborted = False

    def next_deadline(self, now: float) -> float | None:
        self.looked_at.append(now)
        self._log.append(self)
        return self._next_deadline(now) if self._next_deadline is not None else None

    def abort(self) -> None:
        self.is_aborted = True


def make_wheel() -> tuple[Loop, TimerWheel]:
    loop = Loop()
    wheel = TimerWheel(loop)
    wheel.start()
    return loop, wheel


def test_item_is_looked_at_once_within_two_ticks_after_its_deadline_and_never_before() -> None:
    loop, wheel = make_wheel()
    for delay in (0.0, 0.01, 0.25, 1.0, 5.37, 35.0, HORIZON_S - 1):
        item = Item([])
        deadline = loop.now + delay
        wheel.add(item, deadline)
        loop.advance(delay + 1)
        (looked_at,) = item.looked_at
        assert deadline <= looked_at <= deadline + 2 * TICK_S
        assert item.slot == -1


def test_deadline_that_has_passed_is_met_in_the_next_tick() -> None:
    loop, wheel = make_wheel()
    item = Item([])
    wheel.add(item, loop.now - 100)
    loop.advance(2 * TICK_S)
    assert len(item.looked_at) == 1


def test_item_that_names_another_time_is_looked_at_again() -> None:
    loop, wheel = make_wheel()
    start = loop.now
    item = Item([], lambda now: now + 10 if now < start + 15 else None)
    wheel.add(item, start + 10)
    loop.advance(60)
    first, second = item.looked_at
    assert start + 10 <= first <= start + 11
    assert first + 10 <= second <= first + 11
    assert len(wheel) == 0


def test_deadline_beyond_the_horizon_is_looked_at_on_the_way() -> None:
    loop, wheel = make_wheel()
    deadline = loop.now + 2.5 * HORIZON_S
    item = Item([], lambda now: None if now >= deadline else deadline)
    wheel.add(item, deadline)
    loop.advance(3 * HORIZON_S)
    assert len(item.looked_at) == 3
    assert deadline <= item.looked_at[-1] <= deadline + 2 * TICK_S


def test_removed_item_is_forgotten_and_removing_twice_is_harmless() -> None:
    loop, wheel = make_wheel()
    item = Item([])
    wheel.add(item, loop.now + 1)
    wheel.remove(item)
    wheel.remove(item)
    loop.advance(5)
    assert item.looked_at == []
    assert len(wheel) == 0


def test_moved_item_is_looked_at_only_at_its_new_time() -> None:
    loop, wheel = make_wheel()
    start = loop.now
    item = Item([])
    wheel.add(item, start + 1)
    wheel.move(item, start + 20)
    loop.advance(30)
    (looked_at,) = item.looked_at
    assert looked_at >= start + 20


def test_item_may_move_itself_while_it_is_looked_at() -> None:
    loop, wheel = make_wheel()
    start = loop.now
    item: Item

    def linger(now: float) -> float | None:
        wheel.move(item, now + 2)
        return now + 2 if now < start + 2 else None

    item = Item([], linger)
    wheel.add(item, start + 1)
    loop.advance(2)
    assert wheel.items() == [item]
    loop.advance(10)
    # The second time it put itself back and then said "never".
    assert len(item.looked_at) == 2
    assert len(wheel) == 0


def test_item_may_remove_others_that_are_due_with_it() -> None:
    loop, wheel = make_wheel()
    log: list[Item] = []
    items: list[Item] = []

    def remove_all(now: float) -> None:
        for item in items:
            wheel.remove(item)

    items += [Item(log, remove_all) for _ in range(10)]
    for item in items:
        wheel.add(item, loop.now + 1)
    loop.advance(3)
    assert len(log) == 1


def test_many_due_items_are_spread_over_turns_of_the_loop() -> None:
    loop, wheel = make_wheel()
    log: list[Item] = []
    count = 10 * SLICE + 1
    for _ in range(count):
        wheel.add(Item(log), loop.now + 1)
    loop.now += 1 + TICK_S
    seen = []
    while len(log) < count:
        before = len(log)
        loop.run_turn()
        seen.append(len(log) - before)
    assert max(seen) == SLICE
    assert len(seen) == 11


def test_item_removed_between_slices_is_not_looked_at() -> None:
    loop, wheel = make_wheel()
    log: list[Item] = []
    items = [Item(log) for _ in range(2 * SLICE)]
    for item in items:
        wheel.add(item, loop.now + 1)
    loop.now += 1 + TICK_S
    loop.run_turn()
    for item in items:
        wheel.remove(item)
    loop.advance(2)
    assert len(log) == SLICE


def test_stall_of_the_loop_loses_nobody() -> None:
    loop, wheel = make_wheel()
    items = [Item([]) for _ in range(SLOTS)]
    for i, item in enumerate(items):
        wheel.add(item, loop.now + i * TICK_S)
    loop.now += 3 * HORIZON_S
    loop.run_turn()
    loop.advance(1)
    assert [len(item.looked_at) for item in items] == [1] * SLOTS


def test_who_has_spoken_during_a_stall_is_heard_before_it_is_looked_at() -> None:
    loop, wheel = make_wheel()
    deadline = loop.now + 35
    item = Item([])
    wheel.add(item, deadline)
    loop.advance(30)
    # The process is stopped. What was sent to it meanwhile is read in the turns after that.
    loop.now = deadline + 10
    loop.run_turn()
    loop.run_turn()
    assert item.looked_at == []
    loop.advance(2)
    assert len(item.looked_at) == 1


def test_stall_after_stall_does_not_keep_anybody_from_being_looked_at() -> None:
    loop, wheel = make_wheel()
    item = Item([])
    wheel.add(item, loop.now + 1)
    for _ in range(3):
        loop.now += HORIZON_S
        loop.run_turn()
    assert len(item.looked_at) == 1


def test_item_that_fails_is_ended_and_stops_neither_the_wheel_nor_the_others() -> None:
    loop, wheel = make_wheel()

    def fail(now: float) -> None:
        raise ArithmeticError

    failing, good = Item([], fail), Item([])
    wheel.add(failing, loop.now + 1)
    wheel.add(good, loop.now + 5)
    failures = 0
    for _ in range(100):
        try:
            loop.advance(TICK_S)
        except ArithmeticError:
            failures += 1
    assert failures == 1
    assert failing.is_aborted
    assert len(good.looked_at) == 1
    assert not good.is_aborted


def test_stopped_wheel_stands_still() -> None:
    loop, wheel = make_wheel()
    item = Item([])
    wheel.add(item, loop.now + 1)
    wheel.stop()
    wheel.stop()
    loop.advance(10)
    assert item.looked_at == []
    assert wheel.items() == [item]


def test_started_twice_it_turns_once() -> None:
    loop, wheel = make_wheel()
    wheel.start()
    assert len(loop.timers) == 1
