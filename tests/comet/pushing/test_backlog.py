"""Turns of large pushes that are still to come, and who brings them forward."""

from __future__ import annotations

import asyncio

from cluster.contracts.comet import Push, PushReply
from cluster.model import Key
from comet.pushing.backlog import Backlog
from comet.pushing.pushjob import PushJob

A, B, C = Key("a"), Key("b"), Key("c")


class Slices:
    """A backlog and what it served, as (name of the push, key)."""

    def __init__(self) -> None:
        self.served: list[tuple[str, Key]] = []
        self.backlog = Backlog(self._serve)

    def _serve(self, job: PushJob, index: int) -> None:
        self.served.append((job.push.push_id, job.push.keys[index]))


def job(name: str, *keys: Key) -> PushJob:
    future: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
    return PushJob.begin(Push(list(keys), b"1", 0, name, 0, 1.0, (0, 0)), future, 0.0, lambda job: None)


async def test_large_push_that_is_alone_is_not_looked_up() -> None:
    slices = Slices()
    backlog = slices.backlog
    large = job("large", A, B, C)
    backlog.advance(large, 1)
    assert backlog.unfinished
    assert not backlog.is_contended
    backlog.advance(large, 2)
    backlog.advance(large, 3)
    assert not backlog.unfinished


async def test_later_push_brings_the_turn_of_its_key_forward_and_that_once() -> None:
    slices = Slices()
    backlog = slices.backlog
    large = job("large", A, B, C)
    backlog.advance(large, 1)
    backlog.index()
    assert backlog.is_contended
    # The first slice was served: nothing to do. Of the rest only this key.
    assert backlog.serve_before(A, None)
    assert backlog.serve_before(C, None)
    assert slices.served == [("large", C)]
    assert backlog.serve_before(C, None)
    # Its own slices come: b is still to be served, c was.
    assert backlog.serve_before(B, large)
    assert not backlog.serve_before(C, large)
    assert slices.served == [("large", C)]
    backlog.advance(large, 3)
    assert not backlog.is_contended
    assert not backlog.unfinished


async def test_turns_of_several_large_pushes_are_taken_in_the_order_of_the_calls() -> None:
    slices = Slices()
    backlog = slices.backlog
    first, second, third = job("first", A, C), job("second", A, C), job("third", A, C)
    for each in (first, second, third):
        backlog.index()
        backlog.advance(each, 1)
    backlog.index()
    # The second one's slice comes before the first one's.
    assert backlog.serve_before(C, second)
    assert slices.served == [("first", C)]
    backlog.advance(second, 2)
    assert not backlog.serve_before(C, first)
    backlog.advance(first, 2)
    assert backlog.serve_before(C, None)
    assert slices.served == [("first", C), ("third", C)]
    assert not backlog.serve_before(C, third)
    backlog.advance(third, 2)
    assert not backlog.is_contended
