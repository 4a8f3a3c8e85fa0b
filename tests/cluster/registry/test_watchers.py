"""cluster/registry/watchers.py."""

from __future__ import annotations

import logging

import pytest

from cluster.registry.watchers import Watchers


def test_all_hear_in_the_order_in_which_they_came() -> None:
    watchers: Watchers[str] = Watchers()
    heard: list[tuple[int, str]] = []
    watchers.add(lambda news: heard.append((1, news)))
    watchers.add(lambda news: heard.append((2, news)))
    watchers.tell("news")
    assert heard == [(1, "news"), (2, "news")]


def test_a_function_that_watches_twice_ends_one_watch_at_a_time() -> None:
    watchers: Watchers[str] = Watchers()
    heard: list[str] = []
    end = watchers.add(heard.append)
    watchers.add(heard.append)
    end()
    end()
    watchers.tell("news")
    assert heard == ["news"]


def test_a_watch_may_end_or_begin_while_the_others_are_told() -> None:
    watchers: Watchers[str] = Watchers()
    heard: list[str] = []

    def once(news: str) -> None:
        end()
        watchers.add(heard.append)

    end = watchers.add(once)
    watchers.tell("first")
    watchers.tell("second")
    assert heard == ["second"]


def test_fault_of_one_is_logged_and_keeps_the_news_from_nobody(caplog: pytest.LogCaptureFixture) -> None:
    watchers: Watchers[str] = Watchers()
    heard: list[str] = []

    def fail(news: str) -> None:
        raise ValueError(news)

    watchers.add(fail)
    watchers.add(heard.append)
    with caplog.at_level(logging.ERROR):
        watchers.tell("news")
    assert heard == ["news"]
    assert [record.message for record in caplog.records] == ["a watcher of the registry failed"]
