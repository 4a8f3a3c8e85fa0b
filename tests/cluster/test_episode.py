"""cluster/episode.py: what is said once."""

from __future__ import annotations

from cluster.episode import Episode


def test_episode_starts_once_and_ends_once() -> None:
    full = Episode(2)
    assert [full.starts(), full.starts()] == [True, False]
    assert [full.ends(count) for count in (2, 1, 2)] == [True, False, False]


def test_what_comes_and_goes_above_the_end_is_one_episode() -> None:
    full = Episode(2)
    assert full.starts()
    assert not full.ends(3)
    assert not full.starts()
    assert full.ends(0)


def test_nothing_ends_that_has_not_started() -> None:
    assert not Episode(2).ends(0)


def test_another_episode_follows() -> None:
    full = Episode(2)
    for _ in range(2):
        assert full.starts()
        assert full.ends(2)
