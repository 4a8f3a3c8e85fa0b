"""cluster/failurelimiter.py: failures per address."""

from __future__ import annotations

import pytest

from cluster.failurelimiter import FailureLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_address_waits_when_its_failures_are_used_up_and_others_do_not() -> None:
    clock = Clock()
    limiter = FailureLimiter(3, clock)
    for _ in range(3):
        assert limiter.wait_s("a") == 0
        limiter.add_failure("a")
    assert limiter.wait_s("a") == pytest.approx(20.0)
    assert limiter.wait_s("b") == 0
    clock.now += 20
    assert limiter.wait_s("a") == 0


def test_bucket_never_holds_more_than_it_started_with() -> None:
    clock = Clock()
    limiter = FailureLimiter(2, clock)
    limiter.add_failure("a")
    clock.now += 3600
    limiter.add_failure("a")
    limiter.add_failure("a")
    assert limiter.wait_s("a") > 0


def test_table_is_bounded_and_forgets_who_failed_longest_ago() -> None:
    limiter = FailureLimiter(1, Clock(), max_addresses=2)
    for address in ("a", "b", "a", "c"):
        limiter.add_failure(address)
    assert limiter.wait_s("b") == 0
    assert limiter.wait_s("a") > 0
    assert limiter.wait_s("c") > 0


def test_without_a_limit_nobody_waits() -> None:
    limiter = FailureLimiter(0, Clock())
    limiter.add_failure("a")
    assert limiter.wait_s("a") == 0


def test_who_is_trusted_never_waits_and_one_too_many_is_forgotten() -> None:
    limiter = FailureLimiter(1, Clock(), max_addresses=2)
    for address in ("a", "b", "c"):
        limiter.trust(address)
        limiter.add_failure(address)
    assert [limiter.is_trusted(address) for address in ("a", "b", "c")] == [False, True, True]
    assert limiter.wait_s("c") == 0
