"""cluster/limits.py."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from cluster.limits import connection_capacity, count_open_descriptors

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
