"""comet/pushing/chains.py: what is remembered of pushes that others may follow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cluster.contracts.comet import Push
from cluster.model import Key
from comet.pushing.chains import KEPT_S, Chains
from comet.pushing.pushjob import PushJob

BOB = Key("bob")


def line(name: str, follows: str = "", *, key: Key = BOB) -> Push:
    """A push with this id."""
    return Push([key], b"1", 600, name, 0, 10.0, (0, 0), [follows])


class Linking:
    """Pushes that are taken at times that the test chooses."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._loop = asyncio.new_event_loop()

    def link(self, push: Push, at: float = 0.0) -> bool:
        """Whether it may be done."""
        job = PushJob.begin(push, self._loop.create_future(), at, lambda job: None)
        self._chains.link(job)
        return not job.is_out_of_order(0)

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def linking() -> Iterator[Linking]:
    linking = Linking(Chains(kept_ends=2, max_ends=4))
    yield linking
    linking.close()


def test_what_was_long_ago_is_forgotten(linking: Linking) -> None:
    for name in ("a", "b", "c"):
        assert linking.link(line(name))
    # Each takes more than one with it, so that a burst leaves nothing behind.
    assert linking.link(line("d"), at=KEPT_S)
    assert not linking.link(line("e", "a"), at=KEPT_S)
    assert not linking.link(line("f", "b"), at=KEPT_S)
    assert linking.link(line("g", "c"), at=KEPT_S)


def test_what_is_on_its_way_is_remembered_however_much_that_is(linking: Linking) -> None:
    for name in ("a", "b", "c", "d"):
        assert linking.link(line(name))
    assert linking.link(line("e", "a"), at=KEPT_S / 2)


def test_no_more_than_so_many_are_remembered(linking: Linking) -> None:
    for name in ("a", "b", "c", "d", "e"):
        assert linking.link(line(name))
    assert not linking.link(line("f", "a"))
    assert linking.link(line("g", "b"))


def test_streams_to_very_many_keys_have_room() -> None:
    linking = Linking(Chains())
    keys = [[Key(f"{number}-{i}") for i in range(128)] for number in range(256)]
    for number, some in enumerate(keys):
        assert linking.link(Push(some, b"1", 0, f"{number}", 0, 10.0, (0, 0), [""] * 128))
    assert linking.link(line("last", "0", key=keys[0][0]))
    linking.close()
