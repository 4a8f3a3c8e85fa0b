"""cluster/limits.py."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from cluster.limits import (
    connection_capacity,
    count_open_descriptors,
    free_descriptors,
    http_capacity,
    shared_capacity,
)

RAISE = """
import resource
from cluster.limits import raise_descriptor_limit
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
assert raise_descriptor_limit() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > soft
assert raise_descriptor_limit() == hard
"""


def test_soft_limit_is_raised_to_the_hard_one() -> None:
    # In a process of its own: a limit that was raised stays raised.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    subprocess.run(
        [sys.executable, "-c", RAISE],
        check=True,
        timeout=30,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)),
    )


def test_open_descriptors_are_counted() -> None:
    before = count_open_descriptors()
    read, write = os.pipe()
    try:
        assert count_open_descriptors() == before + 2
    finally:
        os.close(read)
        os.close(write)


def test_capacity_is_the_limit_less_what_is_open_and_the_reserve() -> None:
    assert connection_capacity(20_000, reserve=512) == 20_000 - count_open_descriptors() - 512


def test_of_a_small_limit_at_most_half_is_kept() -> None:
    free = 100
    assert connection_capacity(count_open_descriptors() + free, reserve=512) == 50


def test_no_descriptor_left_means_no_connection() -> None:
    assert connection_capacity(1, reserve=512) == 0


@pytest.mark.parametrize(
    ("free", "subscribers", "http"),
    [
        (0, 0, 1),
        (48, 24, 6),
        (280, 140, 38),
        (1_000, 500, 218),
        # An eighth is more than the reserve from here on.
        (4_096, 3_584, 224),
        (64_000, 56_000, 3_968),
        # And here as much as is wanted.
        (1_000_000, 983_936, 8_000),
    ],
)
def test_one_process_shares_its_descriptors_between_subscribers_and_http(
    free: int, subscribers: int, http: int
) -> None:
    limit = count_open_descriptors() + free
    assert shared_capacity(limit, reserve=512, http_wanted=8_000) == (subscribers, http)


@pytest.mark.parametrize(("free", "http"), [(0, 1), (48, 12), (1_000, 468), (20_000, 9_968)])
def test_http_alone_has_what_the_rest_of_its_process_leaves(free: int, http: int) -> None:
    assert http_capacity(free) == http


def test_what_is_free_is_not_open() -> None:
    assert free_descriptors(20_000) == 20_000 - count_open_descriptors()
    assert free_descriptors(1) == 0
